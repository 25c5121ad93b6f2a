"""Exported checkpoints load by the names of the projects that have the network, strictly, and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.model.assumptions import Stated
from engine.model.card import Architecture
from engine.model.export import loads_in, save_checkpoint
from engine.model.network import build_generator
from engine.model.reference import read_checkpoint
from tests.engine.model import layouts
from tests.engine.model.layouts import PytorchGan, Reference, Unet, randomised

NETWORKS: dict[str, tuple[Architecture, Callable[[], nn.Module], str]] = {
    "resnet": (
        Architecture(blocks=2, ngf=4),
        Reference,
        "Loads in pytorch-CycleGAN-and-pix2pix: --ngf 4 --norm instance --no_dropout and ResnetGenerator with "
        "n_blocks=2.",
    ),
    "batch": (
        Architecture(blocks=2, ngf=4, norm="batch", bias=False, padding="zero"),
        lambda: Reference(norm=layouts.batch, bias=False, padding="zero"),
        "Loads in pytorch-CycleGAN-and-pix2pix: --ngf 4 --norm batch --no_dropout and ResnetGenerator with "
        "n_blocks=2, and padding_type='zero' in define_G.",
    ),
    "no norm, gray": (
        Architecture(blocks=2, ngf=4, norm="none", bias=False, channels_in=1, channels_out=1),
        lambda: Reference(norm=layouts.no_norm, bias=False, channels=(1, 1)),
        "Loads in pytorch-CycleGAN-and-pix2pix: --ngf 4 --norm none --no_dropout --input_nc 1 "
        "--output_nc 1 and ResnetGenerator with n_blocks=2.",
    ),
    "U-Net": (
        Architecture(network="unet", levels=7, ngf=2, norm="batch", bias=False),
        lambda: Unet(7),
        "Loads in pytorch-CycleGAN-and-pix2pix: --ngf 2 --norm batch --no_dropout --netG unet_128.",
    ),
    "U-Net, instance": (
        Architecture(network="unet", levels=8, ngf=2),
        lambda: Unet(8, norm=layouts.instance, bias=True),
        "Loads in pytorch-CycleGAN-and-pix2pix: --ngf 2 --norm instance --no_dropout --netG unet_256.",
    ),
    "CUT": (
        Architecture(blocks=2, ngf=4, downsample="blur", upsample="blur"),
        lambda: Reference(down="blur", up="blur"),
        "Loads in CUT: --ngf 4 --norm instance --no_dropout and ResnetGenerator with n_blocks=2.",
    ),
    "PyTorch-GAN": (
        Architecture(blocks=2, ngf=4, upsample="nearest"),
        PytorchGan,
        "Loads in PyTorch-GAN: GeneratorResNet((3, 256, 256), 2) at 4 channels.",
    ),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_exported_checkpoint_loads_where_it_says_and_comes_back_the_same(kind: str, tmp_path: Path) -> None:
    arch, original, sentence = NETWORKS[kind]
    module = build_generator(arch)
    randomised(module)
    assert save_checkpoint(tmp_path / "net.pth", module) == sentence
    network = original()
    network.load_state_dict(torch.load(tmp_path / "net.pth", weights_only=True), strict=True)
    x = torch.rand(1, arch.channels_in, 2 * max(arch.stride, 16), max(arch.stride, 16)) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(network.eval()(x), module.eval()(x), atol=2e-6)
    again = read_checkpoint(tmp_path / "net.pth", stated=Stated()).build()
    assert again.arch == arch
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize(
    ("arch", "missing"),
    [
        (Architecture(upsample="resize"), "resize up-sampling"),
        (Architecture(learn_residual=True), "the learned residual"),
        (Architecture(norm="batch"), "biases beside its norm"),
        (
            Architecture(upsample="nearest", norm="batch", bias=False),
            "nearest up-sampling beside this norm, padding or number of channels",
        ),
        (Architecture(upsample="blur"), "low-pass filters on one side only"),
    ],
)
def test_a_network_that_no_project_has_is_said_to_be_one(arch: Architecture, missing: str) -> None:
    assert loads_in(arch) == f"No known project builds this network as it is ({missing}); see docs/generators.md."
