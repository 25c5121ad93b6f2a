"""Conversion between uint8 pixels and network values; the engine and the trainer share it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_network(pixels_NHWC: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert uint8 [N, H, W, 3] to [N, 3, H, W] in [-1, 1], dtype `dtype`, in channels-last memory format."""
    return pixels_NHWC.permute(0, 3, 1, 2).to(dtype).div_(127.5).sub_(1.0)


def to_centred(pixels_NHWC: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Convert uint8 [N, H, W, 3] to (p - 128) / 128 as [N, 3, H, W] in `dtype`; exact in every floating-point dtype.

    `to_network` in bfloat16 rounds by up to half a grey level. This is `to_network` before rounding, up to the scale
    `CENTRED_SCALE` and a constant, both of which cancel in an InstanceNorm after the first convolution.
    """
    return pixels_NHWC.permute(0, 3, 1, 2).to(dtype).sub_(128.0).div_(128.0)


CENTRED_SCALE = 127.5 / 128.0
"""Scale of `to_centred` relative to `to_network`."""


def to_pixels(images_NCHW: Tensor) -> Tensor:
    """Convert [N, 3, H, W] in [-1, 1] to uint8 [N, H, W, 3], rounded to nearest and clamped.

    Computes in float32 for every input dtype: half-precision types cannot distinguish 254 from 255.
    """
    scaled = images_NCHW.permute(0, 2, 3, 1).float().add(1.0).mul(127.5)
    return scaled.round_().clamp_(0, 255).to(torch.uint8).contiguous()
