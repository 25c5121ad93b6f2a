"""Low-frequency colour blobs: change over more than 32 pixels that the original does not account for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.pixels import to_network

WINDOW = 32
"""Side in pixels of the squares whose mean colours are compared."""
STEP = 16


def blob_energy(original_NHWC: Tensor, translated_NHWC: Tensor, target_NHWC: Tensor) -> float:
    """Return the unexplained low-frequency change of uint8 photos [N, H, W, 3], relative to real target photos.

    A season changes places of equal colour and texture alike: meadows whiten, skies stay. A blob changes one of two
    equal places. For each photo, the change of the mean colour of every 32x32 square is fitted by least squares on a
    quadratic function of the square's original mean colour and on its contrast. The result is the root mean square of
    what remains over that of the colour differences within real photos of the target domain: 0 for no blobs.
    """
    before, contrast = _squares(original_NHWC)
    after, _ = _squares(translated_NHWC)
    real, _ = _squares(target_NHWC)
    remainder = torch.stack([_unexplained(*photo) for photo in zip(before, contrast, after - before, strict=True)])
    spread = real - real.mean(1, keepdim=True)
    return float((remainder.square().mean() / spread.square().mean()).sqrt())


def _squares(pixels_NHWC: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean colours [N, squares, 3] and standard deviations of the luminance [N, squares, 1]."""
    images = to_network(pixels_NHWC).float()
    means = F.avg_pool2d(images, WINDOW, STEP)
    gray = images.mean(1, keepdim=True)
    variance = F.avg_pool2d(gray.square(), WINDOW, STEP) - F.avg_pool2d(gray, WINDOW, STEP).square()
    return means.flatten(2).transpose(1, 2), variance.clamp_min(0).sqrt().flatten(2).transpose(1, 2)


def _unexplained(colours: Tensor, contrast: Tensor, change: Tensor) -> Tensor:
    """Return the residuals [squares, 3] of the least-squares fit for one photo."""
    products = (colours[:, :, None] * colours[:, None, :]).flatten(1)
    terms = torch.cat([torch.ones_like(contrast), colours, products, contrast], 1).double()
    fit: Tensor = torch.linalg.pinv(terms, rtol=1e-6) @ change.double()
    return change.double() - terms @ fit
