"""Networks are told by their keys and shapes, also those that Solstice does not build."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.model.recognise import describe_unknown, recognise
from tests.engine.model import layouts
from tests.engine.model.layouts import Discriminator, PytorchGan, Reference, Unet


def conv(first: int, second: int, kernel: int = 3) -> Tensor:
    return torch.zeros(first, second, kernel, kernel)


@pytest.mark.parametrize(
    ("network", "fields"),
    [
        (Reference(3, ngf=6), {"blocks": 3, "ngf": 6, "padding": "reflect", "upsample": "transpose"}),
        (Reference(padding="zero", dropout=True), {"blocks": 2, "padding": "zero", "downsample": "strided"}),
        (Reference(down="blur", up="blur"), {"downsample": "blur", "upsample": "blur"}),
        (Reference(channels=(1, 4)), {"channels_in": 1, "channels_out": 4}),
        (PytorchGan(3), {"blocks": 3, "upsample": "nearest"}),
        (Unet(6, channels=(4, 1)), {"network": "unet", "levels": 6, "ngf": 2, "channels_in": 4, "channels_out": 1}),
    ],
)
def test_fields_of_the_architecture_are_told(network: nn.Module, fields: dict[str, object]) -> None:
    seen = recognise(network.state_dict())
    assert seen is not None
    assert (seen.is_generator, seen.problem) == (True, "")
    assert fields.items() <= seen.fields.items()


def test_norms_without_a_layer_of_their_own_are_told_from_those_without_parameters() -> None:
    """Where nothing stands between a convolution and its ReLU, there is no norm for certain."""
    state = {
        **{"model.1.weight": conv(4, 3, 7), "model.3.weight": conv(8, 4), "model.5.weight": conv(16, 8)},
        **{"model.7.conv_block.1.weight": conv(16, 16), "model.7.conv_block.4.weight": conv(16, 16)},
        **{"model.8.weight": conv(16, 8), "model.10.weight": conv(8, 4), "model.13.weight": conv(3, 4, 7)},
    }
    seen = recognise(state)
    assert seen is not None
    assert (seen.problem, seen.has_norm_slots) == ("", False)
    with_slots = recognise(Reference(norm=layouts.no_norm).state_dict())
    assert with_slots is not None
    assert with_slots.has_norm_slots


def flat(*convolutions: Tensor) -> dict[str, Tensor]:
    return {f"model.{place * 2}.weight": tensor for place, tensor in enumerate(convolutions)}


NAMED_STAGES = (
    "initial.0.weight",
    "down_blocks.0.conv.0.weight",
    "res_blocks.0.block.0.weight",
    "up_blocks.0.0.weight",
)

REFUSED: dict[str, tuple[Callable[[], dict[str, Tensor]], str, str]] = {
    "PatchGAN": (
        lambda: Discriminator().state_dict(),
        "a discriminator (PatchGAN) of 5 convolutions",
        "a discriminator judges images and makes none; import the generator",
    ),
    "PatchGAN with batch norm": (
        lambda: Discriminator(norm=layouts.batch).state_dict(),
        "a discriminator (PatchGAN) of 5 convolutions",
        "",
    ),
    "PixelGAN": (
        lambda: {
            f"net.{2 * place}.weight": value
            for place, value in enumerate((conv(4, 3, 1), conv(8, 4, 1), conv(1, 8, 1)))
        },
        "a discriminator (PixelGAN) of 3 convolutions",
        "",
    ),
    "pix2pixHD": (
        lambda: Reference(9, ngf=2, downs=4).state_dict(),
        "a ResNet generator of 9 blocks and width 2",
        "Solstice builds networks with 2 down-samplings, not 4",
    ),
    "one down-sampling": (
        lambda: Reference(3, downs=1).state_dict(),
        "a ResNet generator of 3 blocks and width 4",
        "Solstice builds networks with 2 down-samplings, not 1",
    ),
    "two channels": (
        lambda: Unet(5, channels=(2, 3)).state_dict(),
        "a U-Net of 5 levels and width 2",
        "it has 2 input channels, where Solstice builds 1, 3 or 4",
    ),
    "wide U-Net": (
        lambda: {**Unet(5).state_dict(), "model.model.3.weight": conv(4, 3, 3)},
        "a U-Net of 5 levels and width 2",
        "its convolution model.model.3 has the shape [4, 3, 3, 3], not [4, 3, 4, 4]",
    ),
    "U-Net with attention": (
        lambda: {**Unet(5).state_dict(), "model.model.1.model.9.weight": conv(4, 3, 3)},
        "a U-Net of 5 levels and width 2",
        "it has a layer model.model.1.model.9, which the reference's U-Net has not",
    ),
    "first convolution pads itself": (
        lambda: shifted(Reference(1).state_dict()),
        "a ResNet generator of 1 block and width 4",
        "it has 0 layers without weights before the convolution model.0, not 1",
    ),
    "attention in a block": (
        lambda: {**Reference(1).state_dict(), "model.10.conv_block.7.weight": conv(16, 16, 1)},
        "a ResNet generator of 1 block and width 4",
        "its residual block model.10 has 3 convolutions, not two",
    ),
    "two kinds of up-sampling": (
        lambda: {**Reference(1).state_dict(), "model.11.weight": conv(9, 9, 4)},
        "a ResNet generator of 1 block and width 4",
        "its up-sampling layer model.11 has the shape [9, 9, 4, 4] after 0 other layers",
    ),
    "U-GAT-IT": (
        lambda: {
            key: conv(4, 4) for key in ("gamma.weight", "beta.weight", "UpBlock1_1.conv1.weight", "gap_fc.weight")
        },
        "a U-GAT-IT generator",
        "Solstice builds the generators of CycleGAN, CUT, pix2pix and PyTorch-GAN's CycleGAN",
    ),
    "PyTorch-GAN's pix2pix": (
        lambda: {key: conv(4, 4, 4) for key in ("down1.model.0.weight", "up1.model.0.weight", "final.2.weight")},
        "a U-Net generator of PyTorch-GAN's pix2pix",
        "",
    ),
    "named stages": (
        lambda: {key: conv(4, 4, 4) for key in NAMED_STAGES},
        "a ResNet generator with named stages (initial, down_blocks, res_blocks, up_blocks)",
        "",
    ),
}


def shifted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Number the layers of a generator whose first convolution pads itself."""
    return {f"model.{int(key.split('.')[1]) - 1}.{key.split('.', 2)[2]}": value for key, value in state.items()}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_networks_are_named(kind: str) -> None:
    make, what, problem = REFUSED[kind]
    seen = recognise(make())
    assert seen is not None
    assert seen.what == what
    assert seen.problem
    assert problem in (seen.problem, "")


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"weight": torch.zeros(3)},
        {"model.1.weight": torch.zeros(3)},
        {"model.1.weight": conv(4, 3, 7)},
        {"model.x.weight": conv(4, 3, 7)},
        flat(conv(64, 3, 5), conv(128, 64, 5), conv(3, 128, 5)),
        {f"module.{key}": value for key, value in Reference(1).state_dict().items()},
        {"model.model.0.weight": conv(4, 3, 4)},
        {"model.0.conv_block.1.weight": conv(4, 4)},
        {"..": torch.zeros(1), ".": conv(1, 1)},
    ],
)
def test_what_is_not_known_is_not_given_a_name(tensors: dict[str, Tensor]) -> None:
    assert recognise(tensors) is None


def test_an_unknown_network_is_described_by_its_first_tensors() -> None:
    tensors = {f"layer{place}.weight": torch.zeros(2, place + 1) for place in range(5)}
    assert describe_unknown(tensors) == (
        "a network that is not recognised, with the tensors layer0.weight [2, 1], layer1.weight [2, 2], layer2.weight "
        "[2, 3] and 2 more"
    )


def test_every_ordering_of_keys_is_read_alike() -> None:
    """Files written as safetensors hold their keys in alphabetical order, in which model.10 precedes model.2."""
    state = Reference(9, ngf=2).state_dict()
    assert recognise(dict(sorted(state.items()))) == recognise(state)
