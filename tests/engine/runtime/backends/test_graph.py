"""Which shapes are captured, and what happens when capturing fails; the capture itself needs a GPU."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.config import GPU_BATCHES_IN_FLIGHT
from engine.model.weights import Generator
from engine.runtime.backends.base import KernelOptions
from engine.runtime.backends.eager import EagerBackend
from engine.runtime.backends.graph import CALLS_BEFORE_CAPTURE, GraphedNetwork, Network, copy_streams
from engine.runtime.backends.inductor import InductorBackend
from engine.runtime.backends.streams import CopyStreams
from engine.runtime.cache import PackageCache
from engine.runtime.parity import compare


def batch(count: int = 2, side: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8)


def inverted(pixels_NHWC: Tensor) -> Tensor:
    return 255 - pixels_NHWC


class Recorder:
    """Notes the shapes that are captured and replayed; a replay is a call of the network."""

    def __init__(self) -> None:
        self.captured: list[tuple[int, ...]] = []
        self.replayed = 0

    def __call__(self, network: Network, pixels_NHWC: Tensor) -> Network:
        self.captured.append(tuple(pixels_NHWC.shape))

        def replay(pixels_NHWC: Tensor) -> Tensor:
            self.replayed += 1
            return network(pixels_NHWC)

        return replay


def test_a_shape_is_captured_once_when_it_recurs() -> None:
    recorder = Recorder()
    network = GraphedNetwork(inverted, max_pixels=10_000, capture=recorder)
    for _ in range(CALLS_BEFORE_CAPTURE + 3):
        for pixels in (batch(2, 16), batch(3, 16)):
            assert torch.equal(network(pixels), 255 - pixels)
    network(batch(1, 16))
    assert recorder.captured == [(2, 16, 16, 3), (3, 16, 16, 3)]
    assert recorder.replayed == 6


def test_a_large_batch_is_never_captured() -> None:
    recorder = Recorder()
    network = GraphedNetwork(inverted, max_pixels=2 * 16 * 16, capture=recorder, calls_before_capture=0)
    for _ in range(3):
        network(batch(3, 16))
    network(batch(2, 16))
    assert recorder.captured == [(2, 16, 16, 3)]


def test_the_number_of_captured_shapes_is_limited() -> None:
    recorder = Recorder()
    network = GraphedNetwork(inverted, max_pixels=10_000, capture=recorder, calls_before_capture=0)
    for count in range(1, 9):
        pixels = batch(count)
        assert torch.equal(network(pixels), 255 - pixels)
    assert len(recorder.captured) == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="capturing fails only without a GPU")
def test_a_failed_capture_is_remarked_once_and_the_network_runs_without_graphs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = GraphedNetwork(inverted, max_pixels=10_000, calls_before_capture=1)
    with caplog.at_level(logging.WARNING):
        for side in (16, 32) * 3:
            pixels = batch(2, side)
            assert torch.equal(network(pixels), 255 - pixels)
    (message,) = caplog.messages
    assert message.startswith("Going on without CUDA graphs: capturing a batch failed (")


def test_the_parity_check_captures_each_batch_and_keeps_no_graph() -> None:
    recorder = Recorder()
    graphed = GraphedNetwork(inverted, max_pixels=10_000, capture=recorder)
    for _ in range(2):
        pixels = batch()
        assert torch.equal(graphed.run_captured(pixels), 255 - pixels)
    assert recorder.replayed == 2
    assert not graphed._replays


def test_graphs_get_a_parity_case_of_their_own() -> None:
    """On a CPU, where its copy streams do nothing and capturing fails, it compares the network itself."""
    cpu, key = torch.device("cpu"), {"backend": "eager"}
    assert copy_streams(inverted, cpu, key, KernelOptions())[1] == []
    _, (case,) = copy_streams(inverted, cpu, key, KernelOptions(graph_pixels=10_000))
    pixels = batch()
    assert torch.equal(case.run(pixels), 255 - pixels)
    assert case.key == {"backend": "eager", "graph": "captured"}


def test_a_batch_that_fails_releases_the_graphs() -> None:
    recorder = Recorder()

    def network(pixels_NHWC: Tensor) -> Tensor:
        if len(pixels_NHWC) == 3:
            raise torch.OutOfMemoryError("too large")
        return inverted(pixels_NHWC)

    graphed = GraphedNetwork(network, max_pixels=600, capture=recorder, calls_before_capture=0)
    graphed(batch(2))
    assert graphed._replays
    with pytest.raises(torch.OutOfMemoryError):
        graphed(batch(3))
    assert not graphed._replays


@pytest.mark.needs_cuda
def test_on_a_gpu_replays_give_what_the_network_gives_from_several_threads() -> None:
    device = torch.device("cuda", 0)
    calls = 0

    def network(pixels_NHWC: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return 255 - pixels_NHWC.float().sqrt().square().round().to(torch.uint8)

    graphed = GraphedNetwork(network, max_pixels=10_000_000)
    batches = [batch(4, side) for _ in range(40) for side in (64, 128)]
    with ThreadPoolExecutor(GPU_BATCHES_IN_FLIGHT) as pool:
        results = list(pool.map(CopyStreams(graphed, device), batches))
    assert all(torch.equal(result, 255 - pixels) for result, pixels in zip(results, batches, strict=True))
    assert calls == 2 * (CALLS_BEFORE_CAPTURE + 2), "called to warm up and to capture, then replayed"


@pytest.mark.needs_cuda
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_on_a_gpu_a_backend_with_graphs_passes_the_parity_check_and_repeats_its_results(
    backend: str, generator: Generator, tmp_path: Path
) -> None:
    device, options = torch.device("cuda", 0), KernelOptions(graph_pixels=10_000_000)
    made = (
        EagerBackend(generator, "fp16", device, options)
        if backend == "eager"
        else InductorBackend(generator, "fp16", device, PackageCache(tmp_path), options=options)
    )
    assert [case.key.get("graph") for case in made.parity_cases].count("captured") == 1
    for case in made.parity_cases:
        assert compare(generator, case.run).passed, case.key
    pixels = batch(4, 64)
    results = [made(pixels) for _ in range(CALLS_BEFORE_CAPTURE + 3)]
    assert all((result.int() - results[0].int()).abs().max() <= 1 for result in results)
    assert torch.equal(results[-1], results[-2])


@pytest.mark.needs_cuda
def test_on_a_gpu_a_network_that_synchronises_runs_without_graphs(caplog: pytest.LogCaptureFixture) -> None:
    graphed = GraphedNetwork(lambda pixels: pixels + int(pixels.max()), max_pixels=10_000, calls_before_capture=0)
    streams = CopyStreams(graphed, torch.device("cuda", 0))
    with caplog.at_level(logging.WARNING):
        results = [streams(torch.ones(2, 16, 16, 3, dtype=torch.uint8)) for _ in range(3)]
    assert all(torch.equal(result, torch.full_like(result, 2)) for result in results)
    assert len(caplog.messages) == 1
