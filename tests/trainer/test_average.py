from __future__ import annotations

import torch

from trainer.average import Average
from trainer.config import RunConfig
from trainer.networks import build_networks


def test_an_average_follows_the_weights_by_its_decay(config: RunConfig) -> None:
    networks = build_networks(config.networks, seed=1)
    average = Average(networks, decay=0.75)
    before = [weight.clone() for weight in networks.generators()]
    with torch.no_grad():
        for weight in networks.generators():
            weight.add_(1)
    average.update()
    average.update()

    kept = [weight for generator in average.generators() for weight in generator.parameters()]
    for old, now in zip(before, kept, strict=True):
        torch.testing.assert_close(now, old + 1 - 0.75**2)
        assert not now.requires_grad


def test_an_average_is_restored_or_starts_with_the_present_weights(config: RunConfig) -> None:
    networks, others = (build_networks(config.networks, seed) for seed in (1, 2))
    average, stored = Average(networks, decay=0.9), Average(others, decay=0.9).state_dict()

    average.load_state_dict(stored)
    first = next(iter(average.generators()[1].parameters()))
    assert torch.equal(first, next(iter(others.b_to_a.parameters())))

    average.load_state_dict({})
    assert torch.equal(first, next(iter(networks.b_to_a.parameters())))
