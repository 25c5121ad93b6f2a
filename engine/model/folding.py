"""BatchNorm as part of the convolution before it: the same function with one operation less."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn

from engine.model.network import GeneratorNetwork


def fold_batch_norm(network: GeneratorNetwork) -> GeneratorNetwork:
    """Return a copy of `network` for inference without BatchNorm; identities keep the numbering of its layers.

    gamma (conv(x) - mean) / sqrt(variance + eps) + beta is a convolution with scaled weights and another bias, computed
    in float64 here. Networks without BatchNorm are copied unchanged.
    """
    folded = copy.deepcopy(network)
    for layers in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for place, (layer, norm) in enumerate(pairwise(list(layers))):
            if isinstance(norm, nn.BatchNorm2d):
                _fold(_convolution(layer), norm)
                layers[place + 1] = nn.Identity()
    return folded


def _convolution(layer: nn.Module) -> nn.Conv2d | nn.ConvTranspose2d:
    """Return the convolution of an up-sampling or convolution layer."""
    last = layer[-1] if isinstance(layer, nn.Sequential) else layer
    assert isinstance(last, nn.Conv2d | nn.ConvTranspose2d)
    return last


def _fold(conv: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias.double()
    bias = (bias - norm.running_mean.double()) * scale + norm.bias.double()
    shape = (1, -1, 1, 1) if isinstance(conv, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    conv.weight = _parameter(conv.weight.double() * scale.view(shape), conv.weight)
    conv.bias = _parameter(bias, conv.weight)


def _parameter(values: Tensor, like: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().to(like.dtype), requires_grad=like.requires_grad)
