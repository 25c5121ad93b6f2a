"""Replay a network as a CUDA graph for batch shapes that recur.

A graph launches all kernels of a batch with one call, which closes the gaps between kernels that take less time than
their launch. Its memory is fixed: pixels are copied into the input buffer that was captured, and the result is copied
out of its output buffer before the next replay. Each graph keeps the memory of its batch for itself.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from engine.errors import first_line
from engine.runtime.backends.base import KernelOptions, ParityCase
from engine.runtime.backends.streams import CopyStreams

log = logging.getLogger(__name__)

CALLS_BEFORE_CAPTURE = 4
"""Calls with a shape after which it is captured. By then cuDNN has selected its algorithms (`streams.CopyStreams`)."""
_MAX_SHAPES = 4
"""Shapes captured at most, because each graph keeps its memory."""

Network = Callable[[Tensor], Tensor]
Capture = Callable[[Network, Tensor], Network]


def capture_cuda_graph(network: Network, pixels_NHWC: Tensor) -> Network:
    """Capture `network` on the current stream; return a function that replays it for batches of this shape.

    Raises `RuntimeError` if the network cannot be captured, for example because it synchronises with the CPU.
    """
    graph = torch.cuda.CUDAGraph()
    given_NHWC = pixels_NHWC.clone()
    network(given_NHWC)  # what is created at the first call, such as a workspace, must not become part of the graph
    # On the current stream, because `torch.cuda.graph` does not return to it when capturing fails. Other threads
    # allocate pinned memory for their copies meanwhile, which only the mode "thread_local" permits.
    stream = torch.cuda.current_stream(pixels_NHWC.device)
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        made_NHWC = network(given_NHWC)

    def replay(pixels_NHWC: Tensor) -> Tensor:
        given_NHWC.copy_(pixels_NHWC)
        graph.replay()
        return made_NHWC.clone()

    return replay


class GraphedNetwork:
    """Run a network, and replay it as a CUDA graph for shapes that recur; called from one thread at a time."""

    def __init__(
        self,
        network: Network,
        max_pixels: int,
        capture: Capture = capture_cuda_graph,
        calls_before_capture: int = CALLS_BEFORE_CAPTURE,
    ) -> None:
        """`network` maps uint8 [N, H, W, 3] on a CUDA device to the same, enqueueing its work on the current stream.

        Batches of more than `max_pixels` are never captured: they would keep too much memory, and their kernels take
        far longer than a launch. `capture` returns a function that replays a network for the shape of an example.
        """
        self._network = network
        self._max_pixels = max_pixels
        self._capture: Capture | None = capture
        self._calls_before_capture = calls_before_capture
        self._calls: Counter[torch.Size] = Counter()
        self._replays: dict[torch.Size, Network] = {}

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3] on the current stream."""
        shape = pixels_NHWC.shape
        if shape not in self._replays and self._is_due(shape):
            self._replays[shape] = self._captured(pixels_NHWC)
        try:
            return self._replays.get(shape, self._network)(pixels_NHWC)
        except RuntimeError:  # most likely out of memory, of which graphs hold some
            self._replays.clear()
            raise

    def run_captured(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate as `__call__` does, by a graph that is captured now and discarded: for the parity check."""
        return self._captured(pixels_NHWC)(pixels_NHWC)

    def _is_due(self, shape: torch.Size) -> bool:
        if self._capture is None or shape[:3].numel() > self._max_pixels or len(self._replays) == _MAX_SHAPES:
            return False
        self._calls[shape] += 1
        return self._calls[shape] > self._calls_before_capture

    def _captured(self, pixels_NHWC: Tensor) -> Network:
        """Return what replays this shape, or the network itself if capturing fails, now or before."""
        if self._capture is not None:
            try:
                return self._capture(self._network, pixels_NHWC)
            except RuntimeError as error:
                self._capture = None
                log.warning("Going on without CUDA graphs: capturing a batch failed (%s).", first_line(error))
        return self._network


def copy_streams(
    network: Network, device: torch.device, key: Mapping[str, str], options: KernelOptions
) -> tuple[CopyStreams, list[ParityCase]]:
    """Return what runs `network` on a GPU, with CUDA graphs if `options` has them, and the parity case of a graph."""
    if not options.graph_pixels:
        return CopyStreams(network, device), []
    graphed = GraphedNetwork(network, options.graph_pixels)
    captured = torch.inference_mode()(CopyStreams(graphed.run_captured, device).__call__)
    return CopyStreams(graphed, device), [ParityCase({**key, "graph": "captured"}, captured)]
