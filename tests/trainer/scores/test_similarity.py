from __future__ import annotations

import pytest
import torch

from trainer.scores.similarity import luminance, mean_absolute_error, ssim


@pytest.fixture
def photos() -> torch.Tensor:
    return torch.randint(0, 256, (2, 32, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_equal_images_have_a_similarity_of_1_and_noise_has_none(photos: torch.Tensor) -> None:
    assert ssim(photos, photos) == pytest.approx(1, abs=1e-5)
    assert abs(ssim(photos, photos.flip(1))) < 0.2


def test_a_shift_of_brightness_costs_less_similarity_than_lost_structure() -> None:
    ramp = torch.linspace(40, 200, 64).to(torch.uint8).expand(1, 64, 64)[..., None].expand(-1, -1, -1, 3)
    flat = torch.full_like(ramp, 120)
    assert ssim(ramp, ramp + 20) > 0.9 > ssim(ramp, flat)


def test_luminance_weights_colours_and_keeps_white() -> None:
    white_green = torch.tensor([[[[255, 255, 255], [0, 255, 0]]]], dtype=torch.uint8)
    assert luminance(white_green).flatten().tolist() == pytest.approx([255, 0.587 * 255])


def test_errors_are_on_the_scale_of_the_networks() -> None:
    black, white = torch.zeros(1, 4, 4, 3, dtype=torch.uint8), torch.full((1, 4, 4, 3), 255, dtype=torch.uint8)
    assert mean_absolute_error(black, white) == pytest.approx(2)
    assert mean_absolute_error(black, black) == 0
