from __future__ import annotations

import torch

from trainer.scores.distance import sliced_wasserstein


def noise(seed: int, mean: float = 120, spread: float = 20) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(12, 32, 32, 3, generator=random) * spread + mean).clamp(0, 255).to(torch.uint8)


def test_equal_distributions_are_close_and_others_are_far() -> None:
    within = sliced_wasserstein(noise(1), noise(2))
    brighter = sliced_wasserstein(noise(1), noise(2, mean=150))
    rougher = sliced_wasserstein(noise(1), noise(2, spread=40))
    assert within < brighter / 5
    assert within < rougher / 5


def test_equal_seeds_give_equal_distances() -> None:
    assert sliced_wasserstein(noise(1), noise(2), seed=4) == sliced_wasserstein(noise(1), noise(2), seed=4)


def test_sets_may_differ_in_size() -> None:
    assert sliced_wasserstein(noise(1), noise(2)[:5]) < sliced_wasserstein(noise(1), noise(2, mean=150)[:5])
