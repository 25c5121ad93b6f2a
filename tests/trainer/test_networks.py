from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.model.card import Architecture
from trainer.config import DiscriminatorNorm, NetworkConfig
from trainer.networks import PatchDiscriminator, build_networks


def test_a_score_depends_on_a_patch_of_70_pixels() -> None:
    # Without normalisation, whose statistics reach over the whole image, and without padding's edges.
    discriminator = PatchDiscriminator(ndf=4)
    discriminator.model = nn.Sequential(*[m for m in discriminator.model if not isinstance(m, nn.InstanceNorm2d)])
    image = torch.randn(1, 3, 160, 160, requires_grad=True)
    scores = discriminator(image)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad.abs().sum(dim=(0, 1)) > 0
    assert seen.any(dim=0).sum() == 70
    assert seen.any(dim=1).sum() == 70


@pytest.mark.parametrize("side", [32, 128, 256])
def test_the_map_of_scores_has_the_documented_size(side: int) -> None:
    assert PatchDiscriminator(ndf=4)(torch.zeros(2, 3, side, side)).shape == (2, 1, side // 8 - 2, side // 8 - 2)


@pytest.mark.parametrize(("norm", "sees"), [("instance", False), ("none", True)])
def test_only_a_discriminator_without_normalisation_detects_a_colour_cast(norm: DiscriminatorNorm, sees: bool) -> None:
    networks = build_networks(NetworkConfig(ndf=8, discriminator_norm=norm), seed=0)
    discriminator = networks.real_a.eval()
    assert isinstance(discriminator, PatchDiscriminator)
    del discriminator.model[1]  # LeakyReLU, which hides what follows from a cast where it cuts
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    cast = image + torch.tensor([0.4, 0.0, -0.4])[:, None, None]
    with torch.no_grad():
        seen, seen_cast = (discriminator(pixels)[:, :, 2:-2, 2:-2] for pixels in (image, cast))
    assert ((seen_cast - seen).abs().mean() > 0.3 * seen.std()) == sees


def test_published_discriminator_has_the_published_number_of_parameters() -> None:
    convolutions = [(3, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    expected = sum(16 * before * after + after for before, after in convolutions)
    assert sum(weight.numel() for weight in PatchDiscriminator().parameters()) == expected


def test_a_generator_with_learned_residual_starts_as_the_identity() -> None:
    config = NetworkConfig(architecture=Architecture(blocks=1, ngf=4, learn_residual=True), ndf=4)
    networks = build_networks(config, seed=1)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert torch.equal(networks.a_to_b(x), x)
    assert torch.equal(networks.b_to_a(x), x)


def test_initial_weights_are_normal_and_determined_by_the_seed() -> None:
    config = NetworkConfig(architecture=Architecture(blocks=2, ngf=16), ndf=16)
    networks, same, other = (build_networks(config, seed) for seed in (1, 1, 2))
    weights = torch.cat([p.flatten() for p in networks.generators() if p.dim() == 4])
    assert weights.std().item() == pytest.approx(0.02, rel=0.05)
    assert abs(weights.mean().item()) < 1e-3
    assert all(torch.equal(a, b) for a, b in zip(networks.generators(), same.generators(), strict=True))
    assert not torch.equal(networks.generators()[0], other.generators()[0])
