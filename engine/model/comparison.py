"""Compare an imported generator with an image that its own project made, under every way to read the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.errors import SetupError
from engine.model.assumptions import Reading
from engine.model.network import GeneratorNetwork
from engine.model.pixels import to_network
from engine.model.reference import GeneratorCheckpoint

MIN_PSNR_DB = 42.0
"""Minimum for images stored without loss. The reference cuts off fractions where Solstice rounds, which alone is a
difference of 53 dB; processors and versions of PyTorch add hardly anything."""
MIN_LOSSY_PSNR_DB = 30.0
"""Minimum of averages over 8x8 pixels where one of the images is a JPEG or the like, which keeps those best."""
MARGIN_DB = 1.0
"""A reading that fits better by more than this is taken for the right one."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How far a reading's output is from the expected image."""

    reading: Reading
    psnr_db: float
    mean_error: float
    """Mean absolute difference in steps of 255."""

    def __str__(self) -> str:
        return f"{self.psnr_db:.1f} dB, {self.mean_error:.1f} of 255 on average"


def check_reading(
    checkpoint: GeneratorCheckpoint, input_HWC: Tensor, expected_HWC: Tensor, *, is_lossy: bool
) -> tuple[GeneratorNetwork, Fit]:
    """Return the generator of the likeliest reading and how well it fits `expected_HWC`, both images uint8 [H, W, 3].

    Raises `SetupError` with the measured difference if it does not fit, or another reading fits better; then the
    sentence names the options of that one.
    """
    require_sizes(checkpoint, input_HWC, expected_HWC)
    reading = checkpoint.readings[0]
    module = checkpoint.build(reading)
    own = fit(module, reading, input_HWC, expected_HWC, is_lossy)
    others = [
        fit(checkpoint.build(other), other, input_HWC, expected_HWC, is_lossy)
        for other in checkpoint.alternatives
        if other.architecture != reading.architecture
    ]
    best = max([own, *others], key=lambda one: one.psnr_db)
    least_db = MIN_LOSSY_PSNR_DB if is_lossy else MIN_PSNR_DB
    if own.psnr_db >= least_db and own.psnr_db >= best.psnr_db - MARGIN_DB:
        return module, own
    raise SetupError(f"{checkpoint.path}: {_misfit(own, best, others, least_db)}.")


def _misfit(own: Fit, best: Fit, others: Sequence[Fit], least_db: float) -> str:
    found = f"the generator's output differs from the expected image ({own}; {least_db:.0f} dB needed)"
    if best is own:
        tried = f", and none of the {len(others)} other readings is nearer" if others else ""
        return f"{found}{tried}; the input may not be the image that the network was given"
    if best.psnr_db < least_db:
        return f"{found}; of {len(others)} other readings the nearest is {best.reading.options} ({best})"
    return f"{found}; it fits with {best.reading.options} ({best})"


def fit(
    module: GeneratorNetwork, reading: Reading, input_HWC: Tensor, expected_HWC: Tensor, is_lossy: bool = False
) -> Fit:
    """Measure the difference between a generator's output and an image; with `is_lossy` that of 8x8 averages."""
    with torch.inference_mode():
        made_NCHW = module(to_network(input_HWC[None], channels=module.arch.channels_in))
    if made_NCHW.shape[1] == 1:
        made_NCHW = made_NCHW.expand(-1, 3, -1, -1)
    made_HWC = made_NCHW[0, :3].permute(1, 2, 0).double().add(1.0).mul(127.5).clamp(0, 255)
    error_HWC = (made_HWC - expected_HWC.double()).nan_to_num(nan=255.0)
    if is_lossy:
        error_HWC = F.avg_pool2d(error_HWC.permute(2, 0, 1), kernel_size=8, ceil_mode=True)
    mean_square = max(float(error_HWC.square().mean()), 1e-9)
    psnr_db = float(10 * torch.log10(torch.tensor(255**2 / mean_square)))
    return Fit(reading=reading, psnr_db=psnr_db, mean_error=float(error_HWC.abs().mean()))


def require_sizes(checkpoint: GeneratorCheckpoint, input_HWC: Tensor, expected_HWC: Tensor) -> None:
    """Raise `SetupError` if the two images have different sizes, or one that the network does not take."""
    height, width = input_HWC.shape[:2]
    if input_HWC.shape != expected_HWC.shape:
        other = f"{expected_HWC.shape[1]}x{expected_HWC.shape[0]}"
        raise SetupError(
            f"The input is {width}x{height} and the expected image {other}; give the image as the network took it, "
            "such as the real_A that test.py of the reference saves beside fake_B."
        )
    stride = checkpoint.readings[0].architecture.stride
    least = max(16, stride)
    if height % stride or width % stride or min(height, width) < least:
        raise SetupError(
            f"The input is {width}x{height}, and the network takes multiples of {stride} from {least}; give the image "
            "as the network took it."
        )
