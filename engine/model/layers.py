"""Layers that the generators share: norms by name, and the fixed low-pass filters of anti-aliased sampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.card import Architecture


def norm_layer(channels: int, arch: Architecture) -> nn.Module:
    """Return the norm of `arch` for `channels` channels; an identity if it has none, which keeps the numbering."""
    if arch.norm == "batch":
        return nn.BatchNorm2d(channels)
    if arch.norm == "none":
        return nn.Identity()
    return nn.InstanceNorm2d(channels, affine=arch.affine, track_running_stats=arch.track_running_stats)


class BlurDown(nn.Module):
    """Halve [N, C, H, W]: reflect by one pixel, filter with (1, 2, 1) along both sides, keep every second pixel.

    Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019. The filter is fixed, but stored in
    checkpoints.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filt = nn.Buffer(_separable((1.0, 2.0, 1.0), channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C, H/2, W/2]."""
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.filt, stride=2, groups=x.shape[1])


class BlurUp(nn.Module):
    """Double [N, C, H, W]: repeat the edge, insert zeros between pixels, filter with (1, 3, 3, 1) along both sides.

    The filter is fixed, but stored in checkpoints.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filt = nn.Buffer(4 * _separable((1.0, 3.0, 3.0, 1.0), channels))

    @property
    def is_bilinear(self) -> bool:
        """Whether the filter is the usual one, which makes this bilinear enlargement by 2."""
        usual = 4 * _separable((1.0, 3.0, 3.0, 1.0), len(self.filt))
        return self.filt.is_meta or torch.equal(self.filt.cpu().float(), usual)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C, 2H, 2W]."""
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(padded, self.filt, stride=2, padding=3, groups=x.shape[1])


def _separable(taps: tuple[float, ...], channels: int) -> Tensor:
    """Return the product of `taps` with itself, with a sum of 1, as [channels, 1, K, K]."""
    row = torch.tensor(taps, device="cpu")
    kernel = row[:, None] * row[None, :]
    return (kernel / kernel.sum()).repeat(channels, 1, 1, 1)
