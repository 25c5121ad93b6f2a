"""The generators compute what the published code does, and see as far as they claim."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import nn

from engine.model.card import Architecture
from engine.model.network import GeneratorNetwork, ResnetGenerator, build_generator
from engine.model.unet import UnetGenerator
from tests.engine.model.variants import VARIANTS, randomised, reference


@pytest.mark.parametrize("arch", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_generator_computes_what_the_published_code_does(arch: Architecture) -> None:
    module = randomised(arch).double()
    side = max(16, arch.stride)
    x = torch.rand(2, arch.channels_in, side, 2 * side, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        made, expected = module(x), reference(arch, module.state_dict())(x)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)
    assert made.shape == (2, arch.channels_out, side, 2 * side)
    assert made.std() > 0.05, "weights that leave an effect to compare"


@pytest.mark.parametrize(
    "arch",
    [
        Architecture(blocks=6, ngf=1),
        Architecture(blocks=9, ngf=1),
        Architecture(blocks=1, ngf=1, upsample="resize"),
        Architecture(blocks=1, ngf=1, upsample="nearest"),
        Architecture(blocks=1, ngf=1, downsample="blur"),
        Architecture(blocks=1, ngf=1, downsample="blur", upsample="blur", padding="zero"),
    ],
    ids=str,
)
def test_reach_is_what_gradients_show(arch: Architecture) -> None:
    """The farthest input pixel with an influence, over all four positions in the network's stride."""
    farthest = farthest_pixel(arch, 200, range(96, 100))
    assert farthest <= arch.reach < farthest + arch.stride


def test_reach_of_a_u_net_is_what_gradients_show() -> None:
    arch = Architecture(network="unet", levels=5, ngf=1)
    farthest = farthest_pixel(arch, 256, (126, 129))
    assert farthest <= arch.reach < farthest + arch.stride


def farthest_pixel(arch: Architecture, side: int, centres: Iterable[int]) -> int:
    module = linear(build_generator(arch))
    farthest = 0
    for centre in centres:
        image = torch.zeros(1, 3, side, side, dtype=torch.float64, requires_grad=True)
        module(image)[0, 0, centre, centre].backward()
        assert image.grad is not None
        rows, columns = image.grad.abs().sum((0, 1)).nonzero().T
        farthest = max(farthest, *(int((axis - centre).abs().max()) for axis in (rows, columns)))
    return farthest


@pytest.mark.parametrize("levels", [7, 8])
def test_a_u_net_has_the_names_of_the_published_code(levels: int) -> None:
    """Down, up and biases of all levels, as in `unet_128` and `unet_256` with instance norm."""
    with torch.device("meta"):
        state = UnetGenerator(Architecture(network="unet", levels=levels)).state_dict()
    assert len(state) == 4 * levels
    innermost = "model.model" + ".1.model" + ".3.model" * (levels - 2)
    assert state["model.model.0.weight"].shape == (64, 3, 4, 4)
    assert state[f"{innermost}.1.weight"].shape == (512, 512, 4, 4)
    assert state[f"{innermost}.3.weight"].shape == (512, 512, 4, 4)
    assert state["model.model.1.model.5.weight"].shape == (256, 64, 4, 4)
    assert state["model.model.3.bias"].shape == (3,)


def test_a_network_is_built_only_from_its_own_architecture() -> None:
    with pytest.raises(ValueError, match="not a ResNet: unet"):
        ResnetGenerator(Architecture(network="unet"))
    with pytest.raises(ValueError, match="not a U-Net: resnet"):
        UnetGenerator(Architecture())


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


def linear(module: GeneratorNetwork) -> nn.Module:
    """Drop what mixes the whole image or cuts gradients, and make all weights positive, so that none cancel."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.InstanceNorm2d | nn.ReLU | nn.LeakyReLU | nn.Tanh):
                setattr(parent, name, nn.Identity())
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.01)
    return module.double()
