"""The parity check: compare a backend's pixels with those of the fp32 module before it is used.

Compilers and half-precision types can produce wrong results without raising an error. The check translates fixed images
with both and measures the peak signal-to-noise ratio between their pixels. Pixels are integers, so a NaN is detected by
its effect: a NaN before the last InstanceNorm spreads over the whole image; a later one makes single pixels far off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import reduce

import torch
from torch import Tensor

from engine.model.weights import Generator
from engine.runtime.backends.base import Backend, ParityCase, PixelGenerator
from engine.runtime.cache import PackageCache

MIN_PSNR_DB = 40.0
"""Minimum of the worst image: a root-mean-square error of 2.5 steps of 255."""
MAX_ERROR = 64
"""Maximum of the worst pixel, in steps of 255: far above rounding errors, below a NaN converted to a pixel."""

# (rows, columns): square, wide and wider, none of them a shape that a compiler used as its example.
_SHAPES = ((64, 64), (64, 96), (128, 96))
_STEP = 32
"""All of them are multiples of this."""


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """Result of the parity check for the worst of its images."""

    psnr_db: float
    max_error: int
    """Largest difference of any pixel, in steps of 255."""

    @property
    def passed(self) -> bool:
        """Whether the backend may be used; False if `psnr_db` is NaN."""
        return self.psnr_db >= MIN_PSNR_DB and self.max_error <= MAX_ERROR

    def __str__(self) -> str:
        return f"{self.psnr_db:.1f} dB, largest error {self.max_error} of 255"


_EXACT = ParityResult(psnr_db=float("inf"), max_error=0)


def check(generator: Generator, backend: Backend, packages: PackageCache) -> ParityResult:
    """Return the worst result of the packages of `backend`; each is computed once and stored with its package."""
    return reduce(_worse, (_check_once(generator, case, packages) for case in backend.parity_cases), _EXACT)


def _check_once(generator: Generator, case: ParityCase, packages: PackageCache) -> ParityResult:
    stored = packages.notes(case.key).get("parity")
    if stored is not None:
        return ParityResult(**stored)
    parity = compare(generator, case.run)
    with suppress(OSError):  # a read-only cache, as in a container: the check runs again next time
        packages.note(case.key, parity=asdict(parity))
    return parity


def compare(
    generator: Generator, backend: Callable[[Tensor], Tensor], batches: Iterable[Tensor] | None = None
) -> ParityResult:
    """Compare `backend` with the fp32 module on `batches`, uint8 [N, H, W, 3]; by default on the fixed images."""
    # On the CPU, because a GPU may compute float32 convolutions in TF32, which is hardly more precise than fp16.
    reference = PixelGenerator(copy.deepcopy(generator.module), torch.float32)
    worst = _EXACT
    for pixels_NHWC in parity_images(generator.module.arch.stride) if batches is None else batches:
        with torch.inference_mode():
            expected_NHWC = reference(pixels_NHWC)
        worst = _worse(worst, _difference(expected_NHWC, backend(pixels_NHWC)))
    return worst


def parity_images(stride: int = 4) -> list[Tensor]:
    """Return the fixed batches, uint8 [4, H, W, 3]: a gradient, noise, edges, and a dark corner.

    H and W are multiples of `stride`.
    """
    shapes = _SHAPES if stride <= _STEP else ((stride, stride), (stride, 2 * stride))
    return [torch.stack(_images(rows, columns)) for rows, columns in shapes]


def _images(rows: int, columns: int) -> list[Tensor]:
    y, x = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
    gradient = torch.stack((x, y, 1 - x), dim=2)
    noise = torch.rand(rows, columns, 3, generator=torch.Generator().manual_seed(rows))
    stripes = ((x * 8).long() + (y * 6).long()) % 2
    edges = stripes[..., None] * torch.tensor([1.0, 0.6, 0.1])
    vignette = torch.exp(-6 * (x**2 + y**2))[..., None] * torch.tensor([0.9, 1.0, 0.7]) + 0.05 * noise
    return [(image.clamp(0, 1) * 255).round().to(torch.uint8) for image in (gradient, noise, edges, vignette)]


def _difference(expected_NHWC: Tensor, got_NHWC: Tensor) -> ParityResult:
    error_NHWC = got_NHWC.double() - expected_NHWC.double()
    mean_square = error_NHWC.square().mean(dim=(1, 2, 3)).max()
    return ParityResult(
        psnr_db=float(10 * torch.log10(255**2 / mean_square.clamp(min=1e-9))),
        max_error=int(error_NHWC.abs().max()),
    )


def _worse(one: ParityResult, other: ParityResult) -> ParityResult:
    return ParityResult(psnr_db=min(one.psnr_db, other.psnr_db), max_error=max(one.max_error, other.max_error))
