"""The generator's geometry, measured."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from engine.model.card import Architecture
from engine.model.network import ResnetGenerator


@pytest.mark.parametrize("upsample", ["transpose", "resize"])
@pytest.mark.parametrize("blocks", [6, 9])
def test_reach_is_what_gradients_show(blocks: int, upsample: Literal["transpose", "resize"]) -> None:
    """The farthest input pixel with an influence, over all four positions in the network's stride."""
    arch = Architecture(blocks=blocks, ngf=1, upsample=upsample)
    module = linear(ResnetGenerator(arch))
    farthest = 0
    for centre in range(96, 100):
        image = torch.zeros(1, 3, 200, 200, dtype=torch.float64, requires_grad=True)
        module(image)[0, 0, centre, centre].backward()
        assert image.grad is not None
        rows, columns = image.grad.abs().sum((0, 1)).nonzero().T
        farthest = max(farthest, *(int((axis - centre).abs().max()) for axis in (rows, columns)))
    assert farthest <= arch.reach < farthest + arch.stride


def test_a_learned_residual_is_added_and_not_cut() -> None:
    torch.manual_seed(0)
    plain = ResnetGenerator(Architecture(blocks=1, ngf=4))
    learned = ResnetGenerator(Architecture(blocks=1, ngf=4, learn_residual=True))
    learned.load_state_dict(plain.state_dict())
    x = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        change, made = plain(x), learned(x)
    assert torch.equal(made, x + change)
    assert made.abs().max() > 1


def linear(module: ResnetGenerator) -> nn.Module:
    """Drop what mixes the whole image or cuts gradients, and make all weights positive, so that none cancel."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.InstanceNorm2d | nn.ReLU | nn.Tanh):
                setattr(parent, name, nn.Identity())
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.01)
    return module.double()
