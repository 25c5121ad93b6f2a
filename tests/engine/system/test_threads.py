"""One thread is used inside, and neither this thread nor later ones are changed for good."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch

from engine.system.threads import one_thread


def test_one_thread_is_used_inside_and_the_number_is_restored() -> None:
    def inside() -> tuple[int, int, int]:
        torch.set_num_threads(3)
        with one_thread():
            within = torch.get_num_threads()
            with ThreadPoolExecutor(1) as new:
                elsewhere = new.submit(torch.get_num_threads).result()
        return within, elsewhere, torch.get_num_threads()

    before = torch.get_num_threads()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() == (1, 3, 3)
        pool.submit(torch.set_num_threads, before).result()
    assert torch.get_num_threads() == before
