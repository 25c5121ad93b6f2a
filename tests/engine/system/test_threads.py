"""PyTorch uses one thread inside the context, and its settings are restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from engine.system.threads import keep_to_one_thread, one_thread


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Return a thread that may change PyTorch's default, which is restored."""
    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:
        yield pool
        pool.submit(torch.set_num_threads, before).result()
    assert torch.get_num_threads() == before


def in_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as new:
        return new.submit(torch.get_num_threads).result()


def test_one_thread_is_used_inside_and_the_number_is_restored(pool: ThreadPoolExecutor) -> None:
    def inside() -> tuple[int, int, int]:
        torch.set_num_threads(3)
        with one_thread():
            within = torch.get_num_threads()
            elsewhere = in_a_new_thread()
        return within, elsewhere, torch.get_num_threads()

    assert pool.submit(inside).result() == (1, 3, 3)


def test_a_thread_restricted_to_one_keeps_the_default_of_others(pool: ThreadPoolExecutor) -> None:
    def inside() -> tuple[int, int, int]:
        torch.set_num_threads(3)
        keep_to_one_thread()
        with one_thread():
            within = torch.get_num_threads()
        return within, torch.get_num_threads(), in_a_new_thread()

    assert pool.submit(inside).result() == (1, 1, 3)
