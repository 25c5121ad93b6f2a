"""`resize` and `nearest` up-sampling as one transposed convolution: the same function for half the arithmetic.

Nearest-neighbour enlargement by 2 repeats each pixel in a 2x2 square, so the nine taps of the following 3x3 convolution
act as four on the small image. A 4x4 transposed convolution with stride 2 computes the same with 16 instead of 36
products per small pixel and never materialises the enlarged map. Reflecting the enlarged image by one pixel (`resize`)
repeats its edge, which equals the edge of the small image; zeros around it (`nearest`) equal zeros around that.

    fold_upsampling(generator)       for training: parameters and their names stay the same
    FixedUpsampling(convolution)     for inference: the kernel is summed once, in full precision
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.folding import fold_batch_norm
from engine.model.layers import BlurUp
from engine.model.network import GeneratorNetwork, ResnetGenerator


class FoldedUpsampling(nn.Sequential):
    """The three layers of `resize` up-sampling as one operator; state-dict keys are unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge [N, C, H, W] to [N, C', 2H, 2W]."""
        convolution = self[2]
        assert isinstance(convolution, nn.Conv2d)
        return F.conv_transpose2d(
            repeat_edges(x), folded_kernel(convolution.weight), convolution.bias, stride=2, padding=3
        )


class FixedUpsampling(nn.ConvTranspose2d):
    """A 4x4 transposed convolution equal to enlargement by 2 and a trained 3x3 `convolution`.

    A convolution without padding is that of `resize`, after reflection; one with zero padding is that of `nearest`.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        repeats_edges = convolution.padding == (0, 0)
        padding = 3 if repeats_edges else 1
        super().__init__(convolution.in_channels, convolution.out_channels, kernel_size=4, stride=2, padding=padding)
        self._repeats_edges = repeats_edges
        kernel = folded_kernel(convolution.weight.detach())
        self.weight, self.bias = nn.Parameter(kernel.contiguous()), convolution.bias

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Enlarge [N, C, H, W] to [N, C', 2H, 2W]."""
        return super().forward(repeat_edges(x) if self._repeats_edges else x, output_size)


def fold_upsampling(generator: ResnetGenerator) -> None:
    """Replace the `resize` layers of `generator`, in place, with folded ones that have the same parameters."""
    for place, layer in enumerate(generator.model):
        if isinstance(layer, nn.Sequential):
            generator.model[place] = FoldedUpsampling(*layer)


def folded_for_inference(generator: GeneratorNetwork) -> GeneratorNetwork:
    """Return a copy of `generator` in fewer operations, whose state dict has other keys.

    BatchNorm and each `resize` or `nearest` layer become part of a convolution, and a `blur` layer bilinear
    enlargement.
    """
    fixed = fold_batch_norm(generator)
    if not isinstance(fixed, ResnetGenerator):
        return fixed
    for place, layer in enumerate(fixed.model):
        if isinstance(layer, nn.Sequential):
            fixed.model[place] = FixedUpsampling(cast(nn.Conv2d, layer[2]))
        elif isinstance(layer, BlurUp) and layer.is_bilinear:
            fixed.model[place] = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        elif isinstance(layer, nn.Upsample):
            fixed.model[place] = nn.Identity()
            fixed.model[place + 1] = FixedUpsampling(cast(nn.Conv2d, fixed.model[place + 1]))
    return fixed


def folded_kernel(weight: Tensor) -> Tensor:
    """Return the transposed convolution's weight [C, C', 4, 4] for a convolution weight [C', C, 3, 3]."""
    return _sum_neighbours(_sum_neighbours(weight.flip(2, 3).transpose(0, 1), 2), 3)


def repeat_edges(x: Tensor) -> Tensor:
    """Extend [N, C, H, W] by one pixel on each side, repeating the edge.

    Used instead of replication padding, whose backward pass does not compile for channels-last tensors.
    """
    return _repeat_edge(_repeat_edge(x, 2), 3)


def _sum_neighbours(kernel: Tensor, side: int) -> Tensor:
    """Convolve with (1, 1) along dimension `side`: 3 taps become 4."""
    zeros = torch.zeros_like(kernel.narrow(side, 0, 1))
    return torch.cat([kernel, zeros], side) + torch.cat([zeros, kernel], side)


def _repeat_edge(x: Tensor, side: int) -> Tensor:
    last = x.shape[side] - 1
    return torch.cat([x.narrow(side, 0, 1), x, x.narrow(side, last, 1)], side)
