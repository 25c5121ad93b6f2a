"""Conversion between uint8 pixels and network values; the engine and the trainer share it.

Pixels are RGB everywhere. A network of 1 channel gets luma, and its gray result becomes three equal channels; one of 4
channels gets an opaque alpha, and the alpha of its result is dropped.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def to_network(pixels_NHWC: Tensor, dtype: torch.dtype = torch.float32, channels: int = 3) -> Tensor:
    """Convert uint8 [N, H, W, 3] to [N, C, H, W] in [-1, 1], dtype `dtype`, in channels-last memory format."""
    return _with_channels(pixels_NHWC, channels).permute(0, 3, 1, 2).to(dtype).div_(127.5).sub_(1.0)


def to_centred(pixels_NHWC: Tensor, dtype: torch.dtype = torch.float32, channels: int = 3) -> Tensor:
    """Convert uint8 [N, H, W, 3] to (p - 128) / 128 as [N, C, H, W] in `dtype`; exact in every floating-point dtype.

    `to_network` in bfloat16 rounds by up to half a grey level. This is `to_network` before rounding, up to the scale
    `CENTRED_SCALE` and a constant, both of which cancel in an InstanceNorm after the first convolution.
    """
    return _with_channels(pixels_NHWC, channels).permute(0, 3, 1, 2).to(dtype).sub_(128.0).div_(128.0)


CENTRED_SCALE = 127.5 / 128.0
"""Scale of `to_centred` relative to `to_network`."""


def to_pixels(images_NCHW: Tensor) -> Tensor:
    """Convert [N, C, H, W] in [-1, 1] to uint8 [N, H, W, 3], rounded to nearest and clamped.

    Computes in float32 for every input dtype: half-precision types cannot distinguish 254 from 255.
    """
    if images_NCHW.shape[1] == 1:
        images_NCHW = images_NCHW.expand(-1, 3, -1, -1)
    scaled = images_NCHW[:, :3].permute(0, 2, 3, 1).float().add(1.0).mul(127.5)
    return scaled.round_().clamp_(0, 255).to(torch.uint8).contiguous()


def to_luma(pixels_NHWC: Tensor) -> Tensor:
    """Convert uint8 [N, H, W, 3] to the luma of ITU-R BT.601, uint8 [N, H, W, 1], rounded as Pillow's mode L.

    A gray pixel keeps its value.
    """
    red, green, blue = pixels_NHWC.int().unbind(3)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8)[..., None]


def _with_channels(pixels_NHWC: Tensor, channels: int) -> Tensor:
    if channels == 1:
        return to_luma(pixels_NHWC)
    if channels == 4:
        return F.pad(pixels_NHWC, (0, 1), value=255)
    return pixels_NHWC
