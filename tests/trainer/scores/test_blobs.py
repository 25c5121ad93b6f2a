from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from trainer.scores.blobs import blob_energy


@pytest.fixture
def photos() -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 6, 6, generator=random)
    return (F.interpolate(coarse, (256, 256), mode="bicubic").permute(0, 2, 3, 1) * 160 + 40).clamp(0, 255).byte()


def test_a_change_of_colours_alone_is_no_blob(photos: torch.Tensor) -> None:
    cooler = photos.float() * torch.tensor([0.7, 0.9, 1.1]) + 10
    assert blob_energy(photos, photos, photos) == pytest.approx(0, abs=1e-3)
    assert blob_energy(photos, cooler.clamp(0, 255).byte(), photos) < 0.02


def test_a_patch_over_part_of_a_photo_is_found_and_a_stronger_one_counts_more(photos: torch.Tensor) -> None:
    scores = []
    for strength in (20, 60):
        patched = photos.int()
        patched[:, 60:140, 90:170] -= strength
        scores.append(blob_energy(photos, patched.clamp(0, 255).byte(), photos))
    assert 0.03 < scores[0] < scores[1]


def test_fine_texture_is_no_blob(photos: torch.Tensor) -> None:
    noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(1)) * 25
    assert blob_energy(photos, (photos + noise).clamp(0, 255).byte(), photos) < 0.03
