"""What this machine allows at most: arithmetic, memory and libjpeg-turbo, each measured alone.

The generator's ceiling is the rate of its own most frequent layer, the 3x3 convolution of a residual block, applied
to all of its arithmetic. A large matrix product is measured beside it, as the figure that data sheets give.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from engine.bench.photos import QUALITY
from engine.bench.timing import rate
from engine.codec import jpeg
from engine.config import num_cores
from engine.model.card import Architecture
from engine.model.network import build_generator
from engine.model.upsampling import folded_for_inference
from engine.runtime.backends.base import DTYPES
from engine.system.device import fastest_precision

_GPU_SIDE, _CPU_SIDE = 8192, 2048
_COPIED_BYTES = 128 << 20
_GPU_COPIED_BYTES = 4 << 30  # far more than the caches hold
_TILE = 64 * 64  # positions at a quarter of 256x256


def generator_gflop(arch: Architecture, width: int, height: int) -> float:
    """Return the arithmetic of the convolutions for one image, in GFLOP (a multiplication and an addition are two).

    Counted by PyTorch on a network without data, with the up-sampling layers as inference runs them.
    """
    with torch.device("meta"):
        module = folded_for_inference(build_generator(arch).eval())
        pixels = torch.empty(1, arch.channels_in, height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(pixels)
    return float(counter.get_total_flops() / 1e9)


@dataclass(frozen=True)
class Machine:
    """Ceilings of one device; every method measures for at least `measured_s` seconds and returns a rate."""

    device: torch.device
    precision: str
    measured_s: float

    def matrix_tflops(self, precision: str) -> float:
        """Measure a large matrix product in TFLOP/s."""
        side = _GPU_SIDE if self.device.type == "cuda" else _CPU_SIDE
        left, right = (torch.randn(side, side, device=self.device).to(_dtype(precision, self.device)) for _ in range(2))
        with torch.inference_mode():
            return 2 * side**3 * self._per_s(lambda: left @ right) / 1e12

    def convolution_tflops(self, arch: Architecture, batch: int) -> float:
        """Measure the 3x3 convolution of a residual block over `batch` images of 256x256, in TFLOP/s."""
        channels = 4 * arch.ngf
        x = torch.randn(batch, channels, 66, 66, device=self.device).to(_dtype(self.precision, self.device))
        weight = torch.randn(channels, channels, 3, 3, device=self.device).to(_dtype(self.precision, self.device))
        with torch.inference_mode():
            convolve = _convolution(
                x.contiguous(memory_format=torch.channels_last), weight.contiguous(memory_format=torch.channels_last)
            )
            return 2 * 9 * channels**2 * _TILE * batch * self._per_s(convolve) / 1e12

    def copy_gb_per_s(self) -> float:
        """Measure a copy within the device's memory: bytes read plus bytes written, in GB/s."""
        size = _COPIED_BYTES
        if self.device.type == "cuda":
            size = min(_GPU_COPIED_BYTES, torch.cuda.mem_get_info(self.device)[0] // 4)
        source = torch.ones(size, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * size * self._per_s(lambda: target.copy_(source)) / 1e9

    def transfer_gb_per_s(self, *, to_device: bool) -> float:
        """Measure a copy between pinned memory and the GPU, in GB/s; on a CPU, a copy within memory."""
        host = torch.ones(_COPIED_BYTES, dtype=torch.uint8)
        if self.device.type == "cuda":
            host = host.pin_memory()
        on_device = torch.empty_like(host, device=self.device)
        target, source = (on_device, host) if to_device else (host, on_device)
        return _COPIED_BYTES * self._per_s(lambda: target.copy_(source)) / 1e9

    def _per_s(self, work: Callable[[], object]) -> float:
        """Return calls per second, each one waited for."""

        def call(_: None) -> None:
            work()
            synchronise(self.device)

        call(None)
        calls, started_s = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - started_s < self.measured_s:
            call(None)
            calls += 1
        return calls / (time.perf_counter() - started_s)


def jpeg_decode_per_s(jpegs: list[bytes], measured_s: float) -> float:
    """Measure libjpeg-turbo alone, one thread per core: JPEGs per second."""
    return rate(jpeg.decode_rgb, jpegs, num_cores(), measured_s)


def jpeg_encode_per_s(photos_HWC: list[np.ndarray[Any, np.dtype[np.uint8]]], measured_s: float) -> float:
    """Measure libjpeg-turbo alone, one thread per core, with the defaults of `solstice convert`: photos per second."""
    return rate(lambda photo_HWC: jpeg.encode(photo_HWC, QUALITY, "4:2:0"), photos_HWC, num_cores(), measured_s)


def file_write_per_s(files: list[bytes], folder: Path, measured_s: float) -> float:
    """Measure plain writes over the same few files, neither flushed nor renamed, in one thread: files per second."""

    def write(numbered: tuple[int, bytes]) -> None:
        (folder / f"plain-{numbered[0]}").write_bytes(numbered[1])

    return rate(write, list(enumerate(files)), 1, measured_s)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done everything that it was given; return at once for a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type that most of the arithmetic runs in; a mixture is mostly the device's fastest type."""
    return DTYPES.get(precision, DTYPES[fastest_precision(device)])


def _convolution(x: Tensor, weight: Tensor) -> Callable[[], object]:
    """Return the fastest form of the convolution: on a CPU oneDNN's, with the weights packed beforehand."""
    if x.device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        # Private to TorchInductor, which packs weights with them as well; any other form only lowers the ceiling.
        try:
            ones = [1, 1]
            packed = torch.ops.mkldnn._reorder_convolution_weight(weight, [0, 0], ones, ones, 1, list(x.shape))
            arguments: tuple[Any, ...] = (x, packed, None, [0, 0], ones, ones, 1, "none", [], "")
            torch.ops.mkldnn._convolution_pointwise(*arguments)
        except (AttributeError, RuntimeError):
            return lambda: F.conv2d(x, weight)
        return lambda: torch.ops.mkldnn._convolution_pointwise(*arguments)
    return lambda: F.conv2d(x, weight)
