"""Overlap copies with computing. On a CPU the streams do nothing; threads, order of calls and results remain."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from engine.config import GPU_BATCHES_IN_FLIGHT
from engine.runtime.backends.streams import CopyStreams

CPU = torch.device("cpu")


def batches(count: int) -> list[Tensor]:
    return [torch.full((2, 16, 16, 3), i, dtype=torch.uint8) for i in range(count)]


def test_every_thread_gets_the_result_of_its_own_batch() -> None:
    streams = CopyStreams(lambda pixels: 255 - pixels, CPU)

    with ThreadPoolExecutor(GPU_BATCHES_IN_FLIGHT) as pool:
        results = list(pool.map(streams, batches(100)))

    assert all(torch.equal(result, 255 - batch) for result, batch in zip(results, batches(100), strict=True))


def test_the_network_is_never_in_two_calls_at_once() -> None:
    inside = threading.Semaphore(1)
    overlaps = 0

    def network(pixels: Tensor) -> Tensor:
        nonlocal overlaps
        alone = inside.acquire(blocking=False)
        overlaps += not alone
        threading.Event().wait(0.001)
        if alone:
            inside.release()
        return pixels

    with ThreadPoolExecutor(GPU_BATCHES_IN_FLIGHT) as pool:
        list(pool.map(CopyStreams(network, CPU), batches(30)))

    assert overlaps == 0


def test_the_next_batch_works_after_a_failed_one() -> None:
    def network(pixels: Tensor) -> Tensor:
        if pixels[0, 0, 0, 0] == 1:
            raise torch.OutOfMemoryError("too large")
        return pixels

    streams = CopyStreams(network, CPU)
    with pytest.raises(torch.OutOfMemoryError):
        streams(batches(2)[1])

    assert torch.equal(streams(batches(1)[0]), batches(1)[0])


@pytest.mark.needs_cuda
def test_results_on_a_gpu_are_right_while_copies_overlap() -> None:
    device = torch.device("cuda", 0)

    def network(pixels: Tensor) -> Tensor:
        for _ in range(50):  # long enough for the copy of the next batch to overlap
            pixels = 255 - pixels
        return 255 - pixels

    streams = CopyStreams(network, device)
    large = [torch.randint(0, 256, (16, 256, 256, 3), dtype=torch.uint8) for _ in range(24)]
    with ThreadPoolExecutor(GPU_BATCHES_IN_FLIGHT) as pool:
        results = list(pool.map(streams, large))

    assert all(torch.equal(result, 255 - batch) for result, batch in zip(results, large, strict=True))
    assert all(result.is_pinned() for result in results)


@pytest.mark.needs_cuda
def test_steady_work_on_a_gpu_allocates_no_more_memory() -> None:
    streams = CopyStreams(lambda pixels: 255 - pixels, torch.device("cuda", 0))
    for batch in batches(10):
        streams(batch)
    reserved = torch.cuda.memory_reserved(0)

    for batch in batches(200):
        streams(batch)

    assert torch.cuda.memory_reserved(0) == reserved
