"""The parity gate: a compiled generator translates nothing before it agrees with the fp32 module.

Compilers and half-precision types can be wrong in ways that no error reports. The gate runs both on fixed images and
measures the peak signal-to-noise ratio between the resulting pixels. It cannot see a NaN itself, since pixels are
integers, but sees what one does: before the last InstanceNorm it spreads over the whole image, after it it is a pixel
that is far off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import reduce

import torch
from torch import Tensor

from engine.model.weights import Generator
from engine.runtime.backends.base import Backend, Entry, PixelGenerator
from engine.runtime.cache import ArtefactStore

MIN_PSNR_DB = 40.0
"""Of the worst image: a mean error of two and a half steps of 255."""
MAX_ERROR = 64
"""Steps of 255, of the worst pixel; honest rounding stays far below, a NaN turned into a pixel does not."""

# (rows, columns): different from the compilers' example sizes, upright, wide and square.
_SHAPES = ((64, 64), (64, 96), (128, 96))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate found, in the worst of its images."""

    psnr_db: float
    max_error: int
    """Largest difference of any pixel, in steps of 255."""

    @property
    def passed(self) -> bool:
        """Whether the backend may be used; a `psnr_db` that is NaN does not pass."""
        return self.psnr_db >= MIN_PSNR_DB and self.max_error <= MAX_ERROR

    def __str__(self) -> str:
        return f"{self.psnr_db:.1f} dB, largest error {self.max_error} of 255"


_FLAWLESS = Verdict(psnr_db=float("inf"), max_error=0)


def check(generator: Generator, backend: Backend, artefacts: ArtefactStore) -> Verdict:
    """Give the worst verdict on the packages of `backend`; each is reached once and kept with its package."""
    return reduce(_worse, (_check_once(generator, entry, artefacts) for entry in backend.entries), _FLAWLESS)


def _check_once(generator: Generator, entry: Entry, artefacts: ArtefactStore) -> Verdict:
    kept = artefacts.notes(entry.key).get("gate")
    if kept is not None:
        return Verdict(**kept)
    verdict = compare(generator, entry.run)
    with suppress(OSError):  # a registry that cannot be written, as in a container: the gate runs again next time
        artefacts.note(entry.key, gate=asdict(verdict))
    return verdict


def compare(generator: Generator, backend: Callable[[Tensor], Tensor]) -> Verdict:
    """Run the fixed images through `backend` and through the fp32 module on the CPU."""
    # On the CPU, since a GPU may compute float32 convolutions in TF32, which is hardly better than fp16.
    reference = PixelGenerator(copy.deepcopy(generator.module), torch.float32)
    worst = _FLAWLESS
    for pixels_NHWC in gate_images():
        with torch.inference_mode():
            expected_NHWC = reference(pixels_NHWC)
        worst = _worse(worst, _difference(expected_NHWC, backend(pixels_NHWC)))
    return worst


def gate_images() -> list[Tensor]:
    """Make batches of uint8 [4, H, W, 3] without randomness from outside: a gradient, noise, edges, a dark corner."""
    return [torch.stack(_images(rows, columns)) for rows, columns in _SHAPES]


def _images(rows: int, columns: int) -> list[Tensor]:
    y, x = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
    gradient = torch.stack((x, y, 1 - x), dim=2)
    noise = torch.rand(rows, columns, 3, generator=torch.Generator().manual_seed(rows))
    stripes = ((x * 8).long() + (y * 6).long()) % 2
    edges = stripes[..., None] * torch.tensor([1.0, 0.6, 0.1])
    vignette = torch.exp(-6 * (x**2 + y**2))[..., None] * torch.tensor([0.9, 1.0, 0.7]) + 0.05 * noise
    return [(image.clamp(0, 1) * 255).round().to(torch.uint8) for image in (gradient, noise, edges, vignette)]


def _difference(expected_NHWC: Tensor, got_NHWC: Tensor) -> Verdict:
    error_NHWC = got_NHWC.double() - expected_NHWC.double()
    mean_square = error_NHWC.square().mean(dim=(1, 2, 3)).max()
    return Verdict(
        psnr_db=float(10 * torch.log10(255**2 / mean_square.clamp(min=1e-9))),
        max_error=int(error_NHWC.abs().max()),
    )


def _worse(one: Verdict, other: Verdict) -> Verdict:
    return Verdict(psnr_db=min(one.psnr_db, other.psnr_db), max_error=max(one.max_error, other.max_error))
