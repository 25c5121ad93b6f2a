"""The U-Net generator of pix2pix.

Isola, Zhu, Zhou, Efros: "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, appendix 6.1.1;
Ronneberger, Fischer, Brox: "U-Net", MICCAI 2015. Submodules are nested, named and numbered as in the authors' PyTorch
code, so that its checkpoints load by name.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from engine.model.card import Architecture
from engine.model.layers import norm_layer

_NEGATIVE_SLOPE = 0.2


class SkipBlock(nn.Module):
    """One level of a U-Net: halve, run the inner levels, double, and append the result to the input.

    [N, C, H, W] to [N, 2C, H, W], H and W even. The outermost level appends nothing and ends with tanh.
    """

    def __init__(
        self,
        arch: Architecture,
        outer: int,
        inner: int,
        *,
        channels_in: int | None = None,
        submodule: SkipBlock | None = None,
    ) -> None:
        """Build the level with `outer` channels at its own size and `inner` at half of it.

        `channels_in` makes it the outermost level; without `submodule` it is the innermost, whose half size has no norm
        because it may be a single pixel.
        """
        super().__init__()
        self.is_outermost = channels_in is not None
        down = nn.Conv2d(channels_in or outer, inner, kernel_size=4, stride=2, padding=1, bias=arch.bias)
        up = nn.ConvTranspose2d(
            inner if submodule is None else 2 * inner,
            outer,
            kernel_size=4,
            stride=2,
            padding=1,
            bias=arch.bias or self.is_outermost,
        )
        layers: list[nn.Module]
        if submodule is None:
            layers = [_leaky_relu(), down, nn.ReLU(), up, norm_layer(outer, arch)]
        elif self.is_outermost:
            layers = [down, submodule, nn.ReLU(), up, nn.Tanh()]
        else:
            norm_down, norm_up = norm_layer(inner, arch), norm_layer(outer, arch)
            layers = [_leaky_relu(), down, norm_down, submodule, nn.ReLU(), up, norm_up]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, 2C, H, W], or the network's input to its output."""
        made: Tensor = self.model(x)
        return made if self.is_outermost else torch.cat((x, made), 1)


class UnetGenerator(nn.Module):
    """A chain of `levels` nested `SkipBlock`s of ngf, 2, 4, 8, 8, ... times as many channels.

    Takes [N, C, H, W] floats in [-1, 1], H and W multiples of 2 ** levels; returns the same size and range with the
    output's channels. Dropout, which the reference has in training, is left out.
    """

    def __init__(self, arch: Architecture) -> None:
        """Build the network; raises `ValueError` if `arch` is no U-Net."""
        super().__init__()
        if arch.network != "unet":
            raise ValueError(f"not a U-Net: {arch.network}")
        self.arch = arch
        widths = [arch.ngf * min(2**level, 8) for level in range(arch.levels)]
        block: SkipBlock | None = None
        for outer, inner in reversed(list(pairwise(widths))):
            block = SkipBlock(arch, outer, inner, submodule=block)
        self.model = SkipBlock(arch, arch.channels_out, arch.ngf, channels_in=arch.channels_in, submodule=block)

    def forward(self, x: Tensor) -> Tensor:
        """Translate [N, C, H, W] in [-1, 1]; H and W are multiples of 2 ** levels."""
        made: Tensor = self.model(x)
        return x + made if self.arch.learn_residual else made


def _leaky_relu() -> nn.Module:
    return nn.LeakyReLU(_NEGATIVE_SLOPE)
