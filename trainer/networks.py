"""The four networks of CycleGAN: two of the engine's generators and two 70x70 PatchGAN discriminators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.model.card import Architecture
from engine.model.network import ResnetGenerator
from engine.model.upsampling import fold_upsampling
from trainer.config import DiscriminatorNorm, NetworkConfig
from trainer.norm import use_exact_norms

INITIAL_STD = 0.02
"""Standard deviation of the initial convolution weights (Zhu et al., appendix 7.1)."""


class PatchDiscriminator(nn.Module):
    """C64-C128-C256-C512 and a one-channel convolution: one score per 70x70 patch (Zhu et al., appendix 7.2).

    Maps [N, 3, H, W] floats in [-1, 1], H and W at least 32, to scores [N, 1, H/8 - 2, W/8 - 2]: 1 for real, 0 for
    translated.
    """

    def __init__(self, ndf: int = 64, norm: DiscriminatorNorm = "instance") -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(3, ndf, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            *_norm_block(ndf, 2 * ndf, 2, norm),
            *_norm_block(2 * ndf, 4 * ndf, 2, norm),
            *_norm_block(4 * ndf, 8 * ndf, 1, norm),
            nn.Conv2d(8 * ndf, 1, kernel_size=4, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Score every patch of [N, 3, H, W] in [-1, 1]."""
        return self.model(images)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Networks:
    """Two generators and two discriminators.

    In the paper's notation, `a_to_b` is G, `b_to_a` is F, `real_a` is D_X and `real_b` is D_Y.
    """

    a_to_b: nn.Module
    b_to_a: nn.Module
    real_a: nn.Module
    real_b: nn.Module

    def named(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield each network with its name in a checkpoint."""
        yield "a_to_b", self.a_to_b
        yield "b_to_a", self.b_to_a
        yield "real_a", self.real_a
        yield "real_b", self.real_b

    def generators(self) -> list[nn.Parameter]:
        """Return the parameters of both generators."""
        return [*self.a_to_b.parameters(), *self.b_to_a.parameters()]

    def discriminators(self) -> list[nn.Parameter]:
        """Return the parameters of both discriminators."""
        return [*self.real_a.parameters(), *self.real_b.parameters()]


def build_networks(config: NetworkConfig, seed: int) -> Networks:
    """Build the four networks on the CPU, channels last, with weights from N(0, 0.02) drawn with `seed`."""
    networks = Networks(
        _trainable_generator(config.architecture),
        _trainable_generator(config.architecture),
        PatchDiscriminator(config.ndf, config.discriminator_norm),
        PatchDiscriminator(config.ndf, config.discriminator_norm),
    )
    random = torch.Generator().manual_seed(seed)
    for _, network in networks.named():
        initialise(network, random)
        if isinstance(network, ResnetGenerator) and network.arch.learn_residual:
            start_without_change(network)
        use_exact_norms(network)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return networks


def initialise(network: nn.Module, random: torch.Generator) -> None:
    """Draw the weights of every convolution from N(0, 0.02) and set its bias to zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, INITIAL_STD, generator=random)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def start_without_change(generator: ResnetGenerator) -> None:
    """Set the last convolution to zero, so that a generator with `learn_residual` starts as the identity."""
    last = generator.model[-2]
    assert isinstance(last, nn.Conv2d)
    nn.init.zeros_(last.weight)


def _trainable_generator(architecture: Architecture) -> ResnetGenerator:
    generator = ResnetGenerator(architecture)
    fold_upsampling(generator)
    return generator


def _norm_block(channels_in: int, channels_out: int, stride: int, norm: DiscriminatorNorm) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=stride, padding=1),
        nn.InstanceNorm2d(channels_out) if norm == "instance" else nn.Identity(),
        nn.LeakyReLU(0.2, inplace=True),
    ]
