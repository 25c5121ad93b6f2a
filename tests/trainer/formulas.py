"""Both networks of CycleGAN in float64, written from their formulas with elementary operators only.

Convolutions are sums of shifted products, paddings are index lists and normalisations are means, so that every gradient
comes from the chain rule of additions and products and from no kernel that a network under test could share.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.model.network import ResnetBlock, ResnetGenerator
from engine.model.upsampling import FoldedUpsampling


def output_by_formula(network: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Return the output of a generator or discriminator for float64 [N, 3, H, W], with `weights` by parameter name."""
    y = _sequence(network.get_submodule("model"), "model", weights, x)
    return x + y if isinstance(network, ResnetGenerator) and network.arch.learn_residual else y


def convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    """Cross-correlate [N, C, H, W] with [C', C, k, k], without padding."""
    size = weight.shape[-1]
    height, width = ((side - size) // stride + 1 for side in x.shape[2:])
    y = bias[None, :, None, None]
    for row in range(size):
        for column in range(size):
            part = x[:, :, row : row + stride * height : stride, column : column + stride * width : stride]
            y = y + (part[:, None] * weight[None, :, :, row, column, None, None]).sum(2)
    return y


def _sequence(modules: nn.Module, prefix: str, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    for name, module in modules.named_children():
        x = _layer(module, f"{prefix}.{name}", weights, x)
    return x


def _layer(module: nn.Module, name: str, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    match module:
        case ResnetBlock():
            return x + _sequence(module.conv_block, f"{name}.conv_block", weights, x)
        case FoldedUpsampling():  # nearest-neighbour enlargement, reflection, convolution, as `resize` is defined
            return _sequence(nn.Sequential(*module), name, weights, x)
        case nn.Upsample():
            return _take(
                _take(x, 2, [i // 2 for i in range(2 * x.shape[2])]), 3, [i // 2 for i in range(2 * x.shape[3])]
            )
        case nn.ReflectionPad2d():
            return _take(
                _take(x, 2, _reflected(x.shape[2], module.padding[0])), 3, _reflected(x.shape[3], module.padding[0])
            )
        case nn.ConvTranspose2d():
            # The adjoint of a convolution: zeros between the pixels, then a convolution with the flipped kernel.
            size, padding = module.kernel_size[0], int(module.padding[0])
            spread = _spread(_spread(x, 2), 3)
            before, after = size - 1 - padding, size - 1 - padding + module.output_padding[0]
            kernel = weights[f"{name}.weight"].transpose(0, 1).flip(2, 3)
            return convolve(_zeros_around(spread, before, after), kernel, weights[f"{name}.bias"])
        case nn.Conv2d():
            padding = int(module.padding[0])
            padded = _zeros_around(x, padding, padding)
            return convolve(padded, weights[f"{name}.weight"], weights[f"{name}.bias"], module.stride[0])
        case nn.InstanceNorm2d():
            centred = x - x.mean((2, 3), keepdim=True)
            return centred / (centred.square().mean((2, 3), keepdim=True) + module.eps).sqrt()
        case nn.ReLU():
            return torch.where(x > 0, x, torch.zeros_like(x))
        case nn.LeakyReLU():
            return torch.where(x > 0, x, x * module.negative_slope)
        case nn.Tanh():
            return 1 - 2 / ((2 * x).exp() + 1)
        case nn.Identity():
            return x
    raise AssertionError(f"no formula for {module}")


def _reflected(side: int, padding: int) -> list[int]:
    return [(side - 1) - abs((side - 1) - abs(place)) for place in range(-padding, side + padding)]


def _take(x: Tensor, axis: int, places: list[int]) -> Tensor:
    return x.index_select(axis, torch.tensor(places))


def _spread(x: Tensor, axis: int) -> Tensor:
    """Put a zero between neighbours along `axis`."""
    spread = torch.stack([x, torch.zeros_like(x)], axis + 1).flatten(axis, axis + 1)
    return spread.narrow(axis, 0, spread.shape[axis] - 1)


def _zeros_around(x: Tensor, before: int, after: int) -> Tensor:
    for axis in (2, 3):
        shape = list(x.shape)
        shape[axis] = before
        left = x.new_zeros(shape)
        shape[axis] = after
        x = torch.cat([left, x, x.new_zeros(shape)], axis)
    return x
