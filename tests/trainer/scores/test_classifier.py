from __future__ import annotations

import torch

from trainer.scores.classifier import shrink, train_classifier


def photos(red: int, blue: int, count: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    base = torch.tensor([red, 100, blue]).float()
    return (base + 25 * torch.randn(count, 24, 24, 3, generator=random)).clamp(0, 255).to(torch.uint8)


def test_it_separates_the_domains_on_unseen_photos_and_is_reproducible() -> None:
    warm, cold = photos(160, 90, 24, seed=0), photos(90, 160, 40, seed=1)
    first, second = (train_classifier(shrink(warm), shrink(cold), epochs=4) for _ in range(2))
    unseen_warm, unseen_cold = photos(160, 90, 20, seed=2), photos(90, 160, 20, seed=3)
    assert first.accuracy(unseen_warm, unseen_cold) > 0.9
    assert first.share_of_b(unseen_cold) > 0.9
    assert first.share_of_b(unseen_warm) == second.share_of_b(unseen_warm)


def test_training_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train_classifier(shrink(photos(200, 0, 4, 0)), shrink(photos(0, 200, 4, 1)), epochs=1)
    assert torch.equal(torch.rand(1), expected)
