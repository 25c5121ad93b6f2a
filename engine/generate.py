"""Batches of pictures through a generator; floats never leave this stage."""

from __future__ import annotations

import copy
import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.artefacts import ArtefactStore, default_cache
from engine.backends.base import DTYPES, Backend
from engine.backends.eager import EagerBackend
from engine.backends.inductor import InductorBackend, artefact_key, find_compiler
from engine.config import GenerateConfig
from engine.errors import SetupError
from engine.memory import available_bytes
from engine.tiled import translate_tiled, whole_image_bytes
from engine.weights import Generator

log = logging.getLogger(__name__)

MIN_SIDE = 16
"""Pixels; at a quarter of it the deepest reflection padding still finds pixels to mirror."""

# Compiling takes about as long as translating this much without: 500 photos of 256x256.
_WORTH_COMPILING_PIXELS = 500 * 256 * 256


# What a run takes of the memory that is free when it starts; the rest is for pictures on their way and for others.
_SHARE_OF_FREE_MEMORY = 0.5


class Translator:
    """A generator on its backend: uint8 pixels in, uint8 pixels out, any size."""

    def __init__(self, generator: Generator, config: GenerateConfig | None = None) -> None:
        """Choose a backend, compile or load what it needs, and say what was chosen and why.

        Raises `SetupError` when the backend or device asked for is not to be had on this machine.
        """
        config = config or GenerateConfig()
        self.card = generator.card
        self.backend, self.reason = choose_backend(generator, config)
        self._stride = generator.card.architecture.stride
        self._module = generator.module
        self._budget_bytes = config.memory_bytes or int(available_bytes() * _SHARE_OF_FREE_MEMORY)

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3] of any H and W to the same shape and dtype.

        Sides that the network cannot take are padded by reflection, and the result is cropped back. Images too large
        for the memory budget go through in bands, with the same result. Raises `SkipImage` when the budget is too
        small even for that.
        """
        height, width = pixels_NHWC.shape[1:3]
        padded_NHWC = pad(pixels_NHWC, self._stride)
        translate = self.backend if self._fits(padded_NHWC) else self._in_bands
        return translate(padded_NHWC)[:, :height, :width].contiguous()

    def _fits(self, pixels_NHWC: Tensor) -> bool:
        count, height, width, _ = pixels_NHWC.shape
        needed_bytes = count * whole_image_bytes(self._module.arch, height, width, DTYPES[self.backend.precision])
        return needed_bytes <= self._budget_bytes

    def _in_bands(self, pixels_NHWC: Tensor) -> Tensor:
        dtype = DTYPES[self.backend.precision]
        if next(self._module.parameters()).dtype != dtype:
            self._module = copy.deepcopy(self._module).to(dtype)
        translated = [
            translate_tiled(self._module, pixels_HWC, budget_bytes=self._budget_bytes) for pixels_HWC in pixels_NHWC
        ]
        return torch.stack(translated)


def pad(pixels_NHWC: Tensor, stride: int) -> Tensor:
    """Extend [N, H, W, 3] below and to the right until both sides are multiples of `stride` and at least 16.

    The added pixels mirror the image; where it is too small for that, they repeat its edge.
    """
    height, width = pixels_NHWC.shape[1:3]
    missing = [max(MIN_SIDE, -(-side // stride) * stride) - side for side in (height, width)]
    if missing == [0, 0]:
        return pixels_NHWC
    mode = "reflect" if missing[0] < height and missing[1] < width else "replicate"
    planes = F.pad(pixels_NHWC.permute(0, 3, 1, 2).float(), (0, missing[1], 0, missing[0]), mode=mode)
    return planes.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def choose_backend(generator: Generator, config: GenerateConfig) -> tuple[Backend, str]:
    """Pick the backend for `config` on this machine; gives it and one sentence about why."""
    device = choose_device(config.device)
    artefacts = ArtefactStore(config.cache or default_cache())
    name: str = config.backend
    precision: str = config.precision
    why = "as asked"
    if name == "auto":
        precision = fastest_precision(device) if precision == "auto" else precision
        compiled = artefacts.get(artefact_key(generator, precision, device)) is not None
        name, why = _auto(compiled, config.expected_pixels)
    elif precision == "auto":
        precision = "fp32" if name == "eager" else fastest_precision(device)
    backend: Backend
    if name == "eager":
        backend = EagerBackend(generator, precision, device)
    else:
        backend = InductorBackend(generator, precision, device, artefacts)
    return backend, f"{name} {precision} on {device}: {why}"


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device; raises `SetupError` when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SetupError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}.") from None
    if device.type == "cuda":
        _require_cuda(device)
    elif device.type != "cpu":
        raise SetupError(f"--device {name} is not supported; use cpu or cuda.")
    return device


def fastest_precision(device: torch.device) -> str:
    """Give the fastest type that passes the parity check there: fp16 on GPUs, bf16 where the CPU computes in it."""
    if device.type == "cuda":
        return "fp16"
    return "bf16" if has_bf16() else "fp32"


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _auto(compiled: bool, expected_pixels: int | None) -> tuple[str, str]:
    if compiled:
        return "inductor", "already compiled for this machine"
    if expected_pixels is not None and expected_pixels < _WORTH_COMPILING_PIXELS:
        return "eager", "too few images to be worth compiling for"
    if find_compiler() is None:
        log.warning("No C++ compiler found: running without compiling, slower (install g++ to change that).")
        return "eager", "no C++ compiler for a faster backend"
    return "inductor", "fastest here, compiled once"


def _require_cuda(device: torch.device) -> None:
    if torch.version.cuda is None:
        raise SetupError(
            "--device cuda: this PyTorch was built without CUDA; install a CUDA build of torch, or use --device cpu."
        )
    if not torch.cuda.is_available():
        raise SetupError(
            "--device cuda: no NVIDIA driver or GPU was found; `nvidia-smi` must work first, or use --device cpu."
        )
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise SetupError(f"--device {device}: this machine has {torch.cuda.device_count()} GPU(s), counted from 0.")
