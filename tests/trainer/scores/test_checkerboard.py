from __future__ import annotations

import pytest
import torch

from trainer.scores.checkerboard import checkerboard_energy


def smooth_photos() -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 6, 6, generator=random)
    fine = torch.nn.functional.interpolate(coarse, (66, 70), mode="bicubic").permute(0, 2, 3, 1)
    return (fine * 120 + 60 + torch.randn(fine.shape, generator=random)).clamp(0, 255).to(torch.uint8)


def with_pattern(photos: torch.Tensor, period: int, strength: int) -> torch.Tensor:
    rows, columns = torch.arange(photos.shape[1]), torch.arange(photos.shape[2])
    on = ((rows[:, None] % period < period // 2) ^ (columns % period < period // 2))[..., None]
    return (photos.int() + strength * on.int()).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("period", [2, 4])
def test_a_faint_checkerboard_is_detected(period: int) -> None:
    photos = smooth_photos()
    assert checkerboard_energy(with_pattern(photos, period, 6)) > 10 * checkerboard_energy(photos)


def test_a_pattern_of_another_period_is_not_counted() -> None:
    photos = smooth_photos()
    wrong = checkerboard_energy(with_pattern(photos, 22, 6)) / checkerboard_energy(photos)
    right = checkerboard_energy(with_pattern(photos, 4, 6)) / checkerboard_energy(photos)
    assert wrong < right / 5
