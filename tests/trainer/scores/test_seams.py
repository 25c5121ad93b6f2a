from __future__ import annotations

import pytest
import torch

from trainer.scores.seams import seam_energy


def snow_field(colour_below: tuple[int, int, int] = (245, 245, 245)) -> torch.Tensor:
    """Return one photo: brown ground above, white snow below."""
    photo = torch.empty(1, 96, 96, 3)
    photo[:, :48] = torch.tensor([120.0, 100.0, 80.0])
    photo[:, 48:] = torch.tensor(colour_below, dtype=torch.float32)
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(0)) * 3
    return (photo + noise).clamp(0, 255).byte()


def test_a_photo_that_stays_has_no_seams() -> None:
    assert seam_energy(snow_field(), snow_field()) == pytest.approx(1)


def test_snow_that_becomes_meadow_leaves_no_seam_but_a_red_line_is_one() -> None:
    meadow = snow_field((110, 125, 70))
    red = meadow.clone()
    red[:, 46:50] = torch.tensor([220, 40, 60], dtype=torch.uint8)
    assert seam_energy(snow_field(), meadow) < 2
    assert seam_energy(snow_field(), red) > 2 * seam_energy(snow_field(), meadow)


def test_photos_without_white_areas_have_no_seams() -> None:
    dark = torch.full((1, 64, 64, 3), 90, dtype=torch.uint8)
    assert seam_energy(dark, dark + 60) == 1.0
