"""Bring a translation made at working size back to the photo's own size, with the photo's own detail.

He, Sun: "Fast Guided Filter", arXiv:1505.00996, 2015, algorithm 2, with the colour guide of He, Sun, Tang:
"Guided Image Filtering", PAMI 2013, section 3.5. In every window of the working size, the translation is
fitted as an affine function of the photo's colour,

    q = a^T I + b,    a = (Sigma + eps U)^-1 (1/|w| sum(I p) - mu p_mean),    b = p_mean - a^T mu,

with mean mu and covariance Sigma of the photo's colour I, and identity U. The coefficients are averaged over
windows, enlarged bilinearly and applied to the photo at full size: an edge of the photo stays where and as
sharp as it is, whatever the translation does to its colours.

One thing differs from the paper, which fits the translation p itself: here p is what the translation changes,
and I is added to q. Where a window says too little to fit, `eps` then leaves the photo's detail alone instead
of smoothing it away, which is what that filter was made for and the opposite of what a photo needs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.codec.geometry import plain_upsample
from engine.records import Failed, Picture, Record

RADIUS = 4
"""Pixels at working size from the middle of a window to its side."""
EPS = 1e-3
"""Colour variance, in units of the full range squared, below which the photo's detail is left as it is."""
BAND_BYTES = 8 << 20
"""Size of the enlarged coefficients in flight."""


@torch.inference_mode()
def guided_upsample(
    photo_HWC: Tensor,
    working_hwc: Tensor,
    translated_hwc: Tensor,
    *,
    radius: int = RADIUS,
    eps: float = EPS,
) -> Tensor:
    """Give the translation of `photo_HWC`, uint8 [H, W, 3], at its own size.

    `working_hwc` is the photo at working size as the generator saw it, and `translated_hwc` what it answered:
    both uint8 [h, w, 3]. Raises `ValueError` where these two differ in shape.
    """
    if working_hwc.shape != translated_hwc.shape:
        raise ValueError(f"sizes differ: {tuple(working_hwc.shape) = }, {tuple(translated_hwc.shape) = }")
    guide = _planes(working_hwc)
    coefficients = fit(guide, _planes(translated_hwc) - guide, radius, eps)
    coefficients[:, :3].diagonal().add_(1.0)  # the change, added to the photo
    return apply(coefficients, photo_HWC)


def fit(guide: Tensor, target: Tensor, radius: int, eps: float) -> Tensor:
    """Fit `target` [3, h, w] as an affine function of `guide` [3, h, w], both in [0, 1], around every pixel.

    Returns [3, 4, h, w], averaged over windows: for each output channel its weights of red, green and blue,
    and a constant.
    """
    mean_guide, mean_target = _box(guide, radius), _box(target, radius)
    covariance = _box(guide[:, None] * guide[None], radius) - mean_guide[:, None] * mean_guide[None]
    covariance.diagonal(dim1=0, dim2=1).add_(eps)
    joint = _box(target[:, None] * guide[None], radius) - mean_target[:, None] * mean_guide[None]
    weights = torch.einsum("jkhw,ckhw->cjhw", _inverse(covariance), joint)
    constants = mean_target - (weights * mean_guide[None]).sum(1)
    return _box(torch.cat((weights, constants[:, None]), dim=1), radius)


def apply(coefficients: Tensor, photo_HWC: Tensor) -> Tensor:
    """Enlarge `coefficients` [3, 4, h, w] bilinearly to the size of uint8 [H, W, 3] and apply them to it."""
    height, width, _ = photo_HWC.shape
    factors = coefficients.transpose(0, 1).contiguous()  # [4, 3, h, w]: all outputs of one factor together
    factors[3].mul_(255.0).add_(0.5)  # grey levels, and rounding to nearest by cutting off
    upper, lower, share = _bilinear_rows(coefficients.shape[2], height)
    result = torch.empty_like(photo_HWC)
    rows = max(1, BAND_BYTES // (12 * 4 * width))
    for first in range(0, height, rows):
        band = slice(first, min(first + rows, height))
        narrow = torch.lerp(factors[:, :, upper[band]], factors[:, :, lower[band]], share[band, None])
        enlarged = F.interpolate(narrow.flatten(0, 1), size=width, mode="linear").view(4, 3, -1, width)
        value = enlarged[3]
        for factor, colour in zip(enlarged[:3], photo_HWC[band].permute(2, 0, 1).float(), strict=True):
            value.addcmul_(factor, colour)
        result[band] = value.clamp_(0, 255).to(torch.uint8).permute(1, 2, 0)
    return result


def _planes(pixels_hwc: Tensor) -> Tensor:
    return pixels_hwc.permute(2, 0, 1).float().div_(255.0).contiguous()


def _box(planes: Tensor, radius: int) -> Tensor:
    """Average [..., h, w] over windows, cut off at the border of the image."""
    size = 2 * radius + 1
    stacked = planes.reshape(1, -1, *planes.shape[-2:])
    for kernel, padding in (((1, size), (0, radius)), ((size, 1), (radius, 0))):
        stacked = F.avg_pool2d(stacked, kernel, stride=1, padding=padding, count_include_pad=False)
    return stacked.view(planes.shape)


def _inverse(matrices: Tensor) -> Tensor:
    """Invert symmetric 3x3 matrices [3, 3, h, w] by cross products of their rows."""
    first, second, third = matrices
    rows = ((second, third), (third, first), (first, second))
    adjugate = torch.stack([torch.linalg.cross(a, b, dim=0) for a, b in rows])
    determinant = torch.sum(first * adjugate[0], dim=0)
    return adjugate.div_(determinant)


def _bilinear_rows(size_in: int, size_out: int) -> tuple[Tensor, Tensor, Tensor]:
    """Give for each output row the input rows above and below and the share of the lower one."""
    position = ((torch.arange(size_out) + 0.5) * (size_in / size_out) - 0.5).clamp(0, size_in - 1)
    upper = position.floor().long()
    return upper, (upper + 1).clamp(max=size_in - 1), position - upper


def restore(records: list[Record[Picture] | Failed]) -> list[Record[Picture] | Failed]:
    """Enlarge each picture that carries its photo at full size; leave the others as they are.

    `guided` takes colours from the translation and detail from the photo, `plain` interpolates the translation.
    """
    return [
        record if isinstance(record, Failed) else record.replace(_restored(record.payload, record.options.detail))
        for record in records
    ]


def _restored(picture: Picture, way: str) -> Picture:
    full_HWC, before_HWC = picture.full_HWC, picture.before_HWC
    if full_HWC is None or before_HWC is None:
        return picture
    if way == "guided":
        pixels_HWC = guided_upsample(full_HWC, before_HWC, picture.pixels_HWC)
    else:
        pixels_HWC = plain_upsample(picture.pixels_HWC, *full_HWC.shape[:2])
    return replace(picture, pixels_HWC=pixels_HWC, full_HWC=None, before_HWC=full_HWC)
