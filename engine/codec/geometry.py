"""Turn, mirror and resample pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

# EXIF orientation to (swap rows and columns first, then flip these axes of [H, W, 3]).
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


def upright(pixels_HWC: Tensor, orientation: int) -> Tensor:
    """Turn and mirror uint8 [H, W, C] as EXIF `orientation` (1 to 8) asks."""
    swap, axes = _UPRIGHT[orientation]
    pixels = pixels_HWC.transpose(0, 1) if swap else pixels_HWC
    return pixels.flip(axes) if axes else pixels


def resize(pixels_HWC: Tensor, width: int, height: int) -> Tensor:
    """Resample uint8 [H, W, C] to [height, width, C], bicubic and antialiased.

    Equals Pillow's BICUBIC within one step of 255, but for a few values next to steep edges, and is about eight times
    as fast on a CPU.
    """
    if pixels_HWC.shape[:2] == (height, width):
        return pixels_HWC.contiguous()
    planes = pixels_HWC.permute(2, 0, 1)[None]
    resized = F.interpolate(planes, (height, width), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous()


def plain_upsample(translated_hwc: Tensor, height: int, width: int) -> Tensor:
    """Enlarge uint8 [h, w, 3] to [height, width, 3] by bicubic interpolation, for comparison."""
    planes = translated_hwc.permute(2, 0, 1)[None]
    return F.interpolate(planes, size=(height, width), mode="bicubic")[0].permute(1, 2, 0).contiguous()
