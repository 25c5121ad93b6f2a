from __future__ import annotations

import torch
from torch import nn

from engine.model.card import Architecture
from trainer.calibration import needs_statistics, store_statistics
from trainer.config import NetworkConfig
from trainer.networks import build_networks


def test_stored_statistics_are_the_mean_ones_of_single_images() -> None:
    norm = nn.InstanceNorm2d(2, track_running_stats=True)
    network = nn.Sequential(norm)
    images = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    assert needs_statistics(network)
    store_statistics(network, torch.split(images, 3))
    assert not needs_statistics(network)
    assert norm.track_running_stats
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, images.var((2, 3), unbiased=False).mean(0))


def test_a_generator_with_the_statistics_of_one_image_translates_it_as_instance_norm_does() -> None:
    plain = NetworkConfig(architecture=Architecture(blocks=1, ngf=4))
    stored = NetworkConfig(architecture=Architecture(blocks=1, ngf=4, track_running_stats=True))
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = build_networks(plain, seed=1).a_to_b(image)
    generator = build_networks(stored, seed=1).a_to_b
    store_statistics(generator, [image])
    torch.testing.assert_close(generator(image), expected, rtol=1e-4, atol=1e-5)


def test_networks_without_stored_statistics_need_none() -> None:
    assert not needs_statistics(nn.Sequential(nn.InstanceNorm2d(2)))
