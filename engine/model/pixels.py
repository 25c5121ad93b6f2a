"""The one definition of how pixels become network input and back, shared with the trainer."""

from __future__ import annotations

import torch
from torch import Tensor


def to_network(pixels_NHWC: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Map uint8 [N, H, W, 3] to [-1, 1] as a [N, 3, H, W] view in `dtype`.

    The result keeps the channels-last memory order of the input, which convolutions prefer.
    """
    return pixels_NHWC.permute(0, 3, 1, 2).to(dtype).div_(127.5).sub_(1.0)


def to_centred(pixels_NHWC: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Map uint8 [N, H, W, 3] to (p - 128) / 128 as a [N, 3, H, W] view in `dtype`, exactly in any dtype.

    Network input in bfloat16 is off by up to half a grey level. This is that input before rounding, up to a
    scale of `CENTRED_SCALE` and a constant: where InstanceNorm follows the first convolution, both cancel.
    """
    return pixels_NHWC.permute(0, 3, 1, 2).to(dtype).sub_(128.0).div_(128.0)


CENTRED_SCALE = 127.5 / 128.0
"""How much narrower `to_centred` is than `to_network`."""


def to_pixels(images_NCHW: Tensor) -> Tensor:
    """Map [-1, 1] floats [N, 3, H, W] to uint8 [N, H, W, 3], rounded to nearest and clamped.

    The arithmetic is float32 whatever the input is: half-precision types cannot tell 254 from 255.
    """
    scaled = images_NCHW.permute(0, 2, 3, 1).float().add(1.0).mul(127.5)
    return scaled.round_().clamp_(0, 255).to(torch.uint8).contiguous()
