"""Overlap copies to and from a GPU with computation.

Each calling thread has a copy stream of its own. All threads share one compute stream, on which batches run in the
order of the calls, because an engine has one execution context. While one batch is computed, the next is copied in and
the previous one is copied out; with two or more calling threads the GPU never waits for Python.

    thread 1   in  ─ compute ─ out   in  ─ compute ─ out
    thread 2        in  ─ ─ ─ ─ compute ─ out

Pinned and device memory comes from PyTorch's caching allocators: once a size has been used, nothing is allocated.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.observe.profiling import stage_range

_CALLS_BEFORE_TUNING = 2
"""Calls with a shape after which cuDNN measures its convolution algorithms for it, which takes some 0.1 s per layer."""


class CopyStreams:
    """Run a network on a device from several threads, each with a stream for its copies."""

    def __init__(self, network: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """`network` maps uint8 [N, H, W, 3] on `device` to the same, enqueueing its work on the current stream."""
        self._network = network
        self._device = device
        # The CPU has the same stream API as a no-op, on which the tests run this code.
        self._api: Any = torch.get_device_module(device)
        self._compute = self._new_stream()
        self._enqueue = threading.Lock()
        self._calls: Counter[torch.Size] = Counter()
        self._local = threading.local()

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3] in host or device memory to the same in host memory and wait for it."""
        copies = self._copy_stream()
        # Pixels in device memory may still be written on the caller's stream.
        given = self._api.current_stream(self._device).record_event()
        with stage_range("copy in"), self._api.stream(copies):
            copies.wait_event(given)
            on_device_NHWC = self._uploaded(pixels_NHWC)
            arrived = copies.record_event()
        with stage_range("compute"), self._enqueue, self._api.stream(self._compute):
            self._compute.wait_event(arrived)
            self._tune_convolutions(on_device_NHWC.shape)
            translated_NHWC = self._network(on_device_NHWC)
            computed = self._compute.record_event()
        with stage_range("copy out"), self._api.stream(copies):
            copies.wait_event(computed)
            # PyTorch copies into pinned memory whenever a copy to the CPU does not block.
            result_NHWC = translated_NHWC.to("cpu", non_blocking=True)
            self._wait_for(copies)
        # Tensors shared between streams are released only here, when no stream uses them any more.
        return result_NHWC

    def _tune_convolutions(self, shape: torch.Size) -> None:
        """Let cuDNN select algorithms by measurement for shapes that recur, and by heuristics for all others."""
        if self._device.type == "cuda":
            torch.backends.cudnn.benchmark = self._calls[shape] >= _CALLS_BEFORE_TUNING
        self._calls[shape] += 1

    def _uploaded(self, pixels_NHWC: Tensor) -> Tensor:
        if pixels_NHWC.device == self._device:
            return pixels_NHWC
        pinned = pixels_NHWC.pin_memory() if self._device.type == "cuda" else pixels_NHWC
        return pinned.to(self._device, non_blocking=True)

    def _copy_stream(self) -> Any:
        if not hasattr(self._local, "stream"):
            self._local.stream = self._new_stream()
        return self._local.stream

    def _new_stream(self) -> Any:
        return self._api.Stream(self._device) if self._device.type == "cuda" else self._api.Stream()

    def _wait_for(self, copies: Any) -> None:
        if self._device.type == "cuda":
            copies.synchronize()
