from __future__ import annotations

import pytest
import torch

from trainer.losses import adversarial_loss, cycle_loss, discriminator_loss, identity_loss


def test_adversarial_loss_is_the_mean_square_distance_from_one_or_zero() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    assert adversarial_loss(scores, real=True).item() == pytest.approx((0 + 1 + 0.25 + 1) / 4)
    assert adversarial_loss(scores, real=False).item() == pytest.approx((1 + 0 + 0.25 + 4) / 4)


def test_discriminator_loss_halves_the_sum_and_is_a_quarter_for_undecided_scores() -> None:
    unsure = torch.full((2, 1, 3, 3), 0.5)
    assert discriminator_loss(unsure, unsure).item() == pytest.approx(0.25)
    assert discriminator_loss(torch.ones(4), torch.zeros(4)).item() == 0


def test_cycle_and_identity_losses_are_mean_absolute_differences() -> None:
    photo = torch.zeros(2, 3, 4, 4)
    for loss in (cycle_loss, identity_loss):
        assert loss(photo, photo).item() == 0
        assert loss(photo, photo - 0.5).item() == pytest.approx(0.5)


def test_losses_of_half_precision_tensors_are_computed_in_float32() -> None:
    photo = torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16)
    assert cycle_loss(photo, photo).dtype == torch.float32
    assert adversarial_loss(photo, real=True).dtype == torch.float32
