"""`resize` up-sampling as one transposed convolution: the same function of the same parameters, for half the work.

Nearest-neighbour enlargement by 2 makes each pixel a 2x2 square of equal ones, so the nine taps of the 3x3 convolution
that follows act as four on the small image: a 4x4 kernel with stride 2 does the same with 16 products for each small
pixel instead of 36, and the enlarged map is never held. Reflecting the enlarged image by one pixel repeats its edge,
hence the edge of the small one.

    fold_upsampling(generator)       to train: the parameters and their names stay
    folded_for_inference(generator)  to translate: kernels summed once, in full precision
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.network import ResnetGenerator


class FoldedUpsampling(nn.Sequential):
    """The three layers of `resize` up-sampling as one operator; the children keep their names in a state dict."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C', 2H, 2W]."""
        convolution = self[2]
        assert isinstance(convolution, nn.Conv2d)
        return F.conv_transpose2d(
            repeat_edges(x), folded_kernel(convolution.weight), convolution.bias, stride=2, padding=3
        )


class FixedUpsampling(nn.ConvTranspose2d):
    """A transposed 4x4 convolution with the kernel of a `resize` layer that is not trained any more."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(convolution.in_channels, convolution.out_channels, kernel_size=4, stride=2, padding=3)
        kernel = folded_kernel(convolution.weight.detach())
        self.weight, self.bias = nn.Parameter(kernel.contiguous()), convolution.bias

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map [N, C, H, W] to [N, C', 2H, 2W]."""
        return super().forward(repeat_edges(x), output_size)


def fold_upsampling(generator: ResnetGenerator) -> None:
    """Exchange the `resize` layers of `generator` for folded ones with the same parameters; others stay."""
    for place, layer in enumerate(generator.model):
        if isinstance(layer, nn.Sequential):
            generator.model[place] = FoldedUpsampling(*layer)


def folded_for_inference(generator: ResnetGenerator) -> ResnetGenerator:
    """Copy `generator` with its `resize` layers as one operator each; its parameters have other names."""
    fixed = copy.deepcopy(generator)
    for place, layer in enumerate(fixed.model):
        if isinstance(layer, nn.Sequential):
            convolution = layer[2]
            assert isinstance(convolution, nn.Conv2d)
            fixed.model[place] = FixedUpsampling(convolution)
    return fixed


def folded_kernel(weight: Tensor) -> Tensor:
    """Turn the weight [C', C, 3, 3] of the convolution into that of the transposed one, [C, C', 4, 4]."""
    return _sum_neighbours(_sum_neighbours(weight.flip(2, 3).transpose(0, 1), 2), 3)


def repeat_edges(x: Tensor) -> Tensor:
    """Extend [N, C, H, W] by one pixel to each side.

    Replication padding would do, but its backward pass does not compile for channels-last tensors.
    """
    return _repeat_edge(_repeat_edge(x, 2), 3)


def _sum_neighbours(kernel: Tensor, side: int) -> Tensor:
    """Convolve with (1, 1) along one side: 3 taps become 4."""
    zeros = torch.zeros_like(kernel.narrow(side, 0, 1))
    return torch.cat([kernel, zeros], side) + torch.cat([zeros, kernel], side)


def _repeat_edge(x: Tensor, side: int) -> Tensor:
    last = x.shape[side] - 1
    return torch.cat([x.narrow(side, 0, 1), x, x.narrow(side, last, 1)], side)
