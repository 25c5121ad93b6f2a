"""Copies to and from a GPU beside its computing.

Every thread that calls has a lane of its own: a stream for its copies in and out. Computing goes on one stream for all,
in the order of the calls, since an engine has one execution context. While one thread's batch computes, the next one's
is copied in and the last one's is copied out, and the GPU never waits for Python as long as two threads call.

    lane 1   in  ─ compute ─ out   in  ─ compute ─ out
    lane 2        in  ─ ─ ─ ─ compute ─ out

Pinned and device memory come from PyTorch's caching allocators: after a size's first batches, nothing is allocated.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.observe.profiling import stage_range


class Lanes:
    """Runs a network on a device with streams, from several threads at once."""

    def __init__(self, network: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """`network` maps uint8 [N, H, W, 3] on `device` to the same, enqueueing on the current stream."""
        self._network = network
        self._device = device
        # The CPU has streams of the same shape, which do nothing: tests run this very code there.
        self._api: Any = torch.get_device_module(device)
        self._compute = self._new_stream()
        self._enqueue = threading.Lock()
        self._local = threading.local()

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3] from host or device memory to the same in host memory; waits for the result."""
        lane = self._lane()
        # What comes in device memory may still be under way on the caller's stream.
        given = self._api.current_stream(self._device).record_event()
        with stage_range("copy in"), self._api.stream(lane):
            lane.wait_event(given)
            on_device_NHWC = self._uploaded(pixels_NHWC)
            arrived = lane.record_event()
        with stage_range("compute"), self._enqueue, self._api.stream(self._compute):
            self._compute.wait_event(arrived)
            translated_NHWC = self._network(on_device_NHWC)
            computed = self._compute.record_event()
        with stage_range("copy out"), self._api.stream(lane):
            lane.wait_event(computed)
            # Into pinned memory: PyTorch takes it for every copy to the CPU that does not block.
            result_NHWC = translated_NHWC.to("cpu", non_blocking=True)
            self._wait_for(lane)
        # Tensors of one stream that another one used are released only here, when all streams are done with them.
        return result_NHWC

    def _uploaded(self, pixels_NHWC: Tensor) -> Tensor:
        if pixels_NHWC.device == self._device:
            return pixels_NHWC
        pinned = pixels_NHWC.pin_memory() if self._device.type == "cuda" else pixels_NHWC
        return pinned.to(self._device, non_blocking=True)

    def _lane(self) -> Any:
        if not hasattr(self._local, "stream"):
            self._local.stream = self._new_stream()
        return self._local.stream

    def _new_stream(self) -> Any:
        return self._api.Stream(self._device) if self._device.type == "cuda" else self._api.Stream()

    def _wait_for(self, lane: Any) -> None:
        if self._device.type == "cuda":
            lane.synchronize()
