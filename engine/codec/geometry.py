"""Turn, mirror and resample pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# EXIF orientation to (swap rows and columns first, then flip these axes of [H, W, C]).
_UPRIGHT: dict[int, tuple[bool, tuple[int, ...]]] = {
    1: (False, ()),
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}

_BAND_ROWS = 64
"""Rows that are mirrored at a time."""


def upright(pixels_HWC: Tensor, orientation: int) -> Tensor:
    """Turn and mirror [H, W, C] as EXIF `orientation` (1 to 8) asks (Exif 3.0, section 4.6.5.1)."""
    swap, axes = _UPRIGHT[orientation]
    pixels = pixels_HWC.transpose(0, 1) if swap else pixels_HWC
    if not axes:
        return pixels
    if pixels.device.type != "cpu":
        return pixels.flip(axes)
    # In bands, because `flip` of a transposed image returns it transposed, which has to be copied once more.
    height = len(pixels)
    result = torch.empty(pixels.shape, dtype=pixels.dtype)
    for top in range(0, height, _BAND_ROWS):
        bottom = min(height, top + _BAND_ROWS)
        band = slice(height - bottom, height - top) if 0 in axes else slice(top, bottom)
        result[top:bottom] = pixels[band].flip(axes)
    return result


def is_turned(orientation: int) -> bool:
    """Return whether EXIF `orientation` swaps width and height."""
    return _UPRIGHT[orientation][0]


def resize(pixels_HWC: Tensor, width: int, height: int) -> Tensor:
    """Resample uint8 or uint16 [H, W, C] to [height, width, C], bicubic and antialiased.

    For uint8 this equals Pillow's BICUBIC within one step of 255, but for a few values next to steep edges, and is
    about eight times as fast on a CPU.
    """
    if pixels_HWC.shape[:2] == (height, width):
        return pixels_HWC.contiguous()
    if pixels_HWC.dtype == torch.uint8:
        return _resampled(pixels_HWC, width, height)
    return _resampled(pixels_HWC.float(), width, height).add_(0.5).clamp_(0, 65535).to(torch.uint16)


def resize_scaled(pixels_HWC: Tensor, width: int, height: int, whole: tuple[int, int]) -> Tensor:
    """Resample what a JPEG decoder made smaller, uint8 [H, W, C], to [height, width, C], as `resize` does.

    A decoder that makes n/8 of an image rounds its sides up: of 727 rows at 6/8 it returns 546, of which the image
    fills 545.25. Taken for whole, edges would move by up to a pixel of the decoder's.

    Args:
        pixels_HWC: What was decoded.
        width: Of the result, in pixels.
        height: Likewise.
        whole: Height and width of the image at its own size.
    """
    longer = 0 if whole[0] >= whole[1] else 1
    eighths = round(8 * pixels_HWC.shape[longer] / whole[longer])
    # The factor is given, not the size, so that the last fraction of a pixel is not stretched. A trace more, since the
    # size of the result is the product, rounded down.
    factors = tuple((side + 1e-4) * 8 / (eighths * own) for side, own in zip((height, width), whole, strict=True))
    planes = pixels_HWC.permute(2, 0, 1)[None]
    resized = F.interpolate(planes, scale_factor=factors, mode="bicubic", antialias=True)[0, :, :height, :width]
    return resized.permute(1, 2, 0).contiguous()


def resize_with_alpha(
    pixels_HWC: Tensor, alpha_HW: Tensor | None, width: int, height: int
) -> tuple[Tensor, Tensor | None]:
    """Resample colours weighted by their alpha, and the alpha; each as `resize` does.

    A translucent pixel counts by as much as it is seen, so that the colour stored behind transparency, often black,
    does not show at edges (Porter, Duff: "Compositing Digital Images", SIGGRAPH 1984: premultiplied colour). Where all
    that a result is made of is transparent, its colour is resampled without weights.

    Args:
        pixels_HWC: uint8 or uint16.
        alpha_HW: uint8, 255 is opaque; None where everything is.
        width: Of the result, in pixels.
        height: Likewise.
    """
    if alpha_HW is None or pixels_HWC.shape[:2] == (height, width):
        return resize(pixels_HWC, width, height), alpha_HW
    white = 255 if pixels_HWC.dtype == torch.uint8 else 65535
    alpha = alpha_HW[..., None].float()
    weighted = _resampled(pixels_HWC.float().mul_(alpha), width, height)
    weight = _resampled(alpha, width, height)
    seen = weight > 0.5
    colours = torch.where(seen, weighted / torch.where(seen, weight, 1.0), 0.0).add_(0.5).clamp_(0, white)
    resized_HWC = torch.where(
        seen.expand_as(colours), colours.to(torch.int32), resize(pixels_HWC, width, height).to(torch.int32)
    )
    return resized_HWC.to(pixels_HWC.dtype).contiguous(), resize(alpha_HW[..., None], width, height)[..., 0]


def plain_upsample(translated_hwc: Tensor, height: int, width: int) -> Tensor:
    """Enlarge uint8 or float [h, w, 3] to [height, width, 3] by bicubic interpolation, for comparison."""
    planes = translated_hwc.permute(2, 0, 1)[None]
    return F.interpolate(planes, size=(height, width), mode="bicubic")[0].permute(1, 2, 0).contiguous()


def _resampled(pixels_HWC: Tensor, width: int, height: int) -> Tensor:
    planes = pixels_HWC.permute(2, 0, 1)[None]
    return F.interpolate(planes, (height, width), mode="bicubic", antialias=True)[0].permute(1, 2, 0).contiguous()
