"""Guided upsampling keeps the photo's edges, follows the translation's colours, and equals its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.codec.detail import apply, fit, guided_upsample
from engine.codec.geometry import plain_upsample, resize


def photo(height: int, width: int) -> Tensor:
    """Make three hard-edged shapes on a soft background, with grain: uint8 [H, W, 3]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    picture = torch.stack((0.3 + 0.4 * y, 0.6 - 0.3 * x, 0.5 + 0.2 * x * y), dim=-1)
    for column, colour in ((0.2, (0.9, 0.2, 0.1)), (0.5, (0.1, 0.7, 0.2)), (0.8, (0.2, 0.3, 0.9))):
        picture[(x - column).square() + (y - 0.5).square() < 0.015] = torch.tensor(colour)
    grain = 0.03 * torch.randn(height, width, 1, generator=torch.Generator().manual_seed(0))
    return ((picture + grain) * 255).clamp(0, 255).to(torch.uint8)


def recolour(pixels_HWC: Tensor) -> Tensor:
    """Stand in for a generator: mix channels, darken, shift."""
    mix = torch.tensor([[0.7, 0.1, 0.0], [0.1, 0.5, 0.2], [0.0, 0.2, 0.6]])
    return (pixels_HWC.float() @ mix + 20).clamp(0, 255).to(torch.uint8)


def mean_error(a: Tensor, b: Tensor) -> float:
    return (a.float() - b.float()).abs().mean().item()


def test_an_affine_recolouring_is_found_and_applied_at_full_size() -> None:
    full = photo(300, 460)
    small = resize(full, 115, 75)
    result = guided_upsample(full, small, recolour(small))
    assert result.dtype == torch.uint8
    assert result.shape == full.shape
    assert mean_error(result, recolour(full)) < 1.5


def test_detail_is_that_of_the_photo() -> None:
    """Much nearer to the recolouring at full size than the enlarged translation can be."""
    full = photo(300, 460)
    small = resize(full, 115, 75)
    translated = recolour(small)
    want = recolour(full)
    guided = guided_upsample(full, small, translated)
    assert mean_error(guided, want) < mean_error(plain_upsample(translated, 300, 460), want) / 3


def test_an_unchanged_photo_comes_back() -> None:
    full = photo(200, 300)
    small = resize(full, 150, 100)
    assert mean_error(guided_upsample(full, small, small), full) < 1


def test_what_the_translation_paints_over_is_gone() -> None:
    """A translation to one colour leaves nothing of the shapes; fine grain may stay."""
    full = photo(120, 160)
    small = resize(full, 80, 60)
    painted = torch.full_like(small, 77)
    result = guided_upsample(full, small, painted)
    assert mean_error(result, torch.full_like(full, 77)) < 0.15 * mean_error(full, torch.full_like(full, 77))


def test_grain_in_flat_places_is_kept() -> None:
    """The filter of the paper would smooth it: too little variance to fit."""
    grain = torch.randint(-2, 3, (120, 160, 1), generator=torch.Generator().manual_seed(0))
    full = (100 + grain).expand(-1, -1, 3).to(torch.uint8).contiguous()
    small = resize(full, 40, 30)
    result = guided_upsample(full, small, torch.full_like(small, 140))
    kept = result.float().std() / full.float().std()
    assert 0.8 < kept.item() < 1.2
    assert abs(result.float().mean().item() - 140) < 1


def test_the_fit_is_the_ridge_regression_of_the_paper() -> None:
    """Equations 11 and 12 of the 2013 paper, solved plainly for one window and averaged over windows."""
    radius, eps = 2, 1e-3
    guide, target = torch.rand(2, 3, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    affine = torch.empty(3, 4, 9, 11, dtype=torch.float64)

    def window(planes: Tensor, y: int, x: int) -> Tensor:
        rows, columns = slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)
        return planes[..., rows, columns].flatten(-2)

    for y in range(9):
        for x in range(11):
            inputs, outputs = window(guide, y, x), window(target, y, x)
            centred = inputs - inputs.mean(1, keepdim=True)
            sigma = centred @ centred.T / inputs.shape[1] + eps * torch.eye(3, dtype=torch.float64)
            weights = torch.linalg.solve(sigma, centred @ outputs.T / inputs.shape[1]).T
            affine[:, :3, y, x] = weights
            affine[:, 3, y, x] = outputs.mean(1) - weights @ inputs.mean(1)
    want = torch.stack([window(affine, y, x).mean(-1) for y in range(9) for x in range(11)], dim=-1)
    torch.testing.assert_close(fit(guide, target, radius, eps), want.view(3, 4, 9, 11), rtol=0, atol=1e-9)


@pytest.mark.parametrize("band_bytes", [1, 50_000, 1 << 30])
def test_bands_change_nothing(band_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    full = photo(90, 130)
    coefficients = torch.rand(3, 4, 30, 43, generator=torch.Generator().manual_seed(0)) / 3
    planes = torch.nn.functional.interpolate(coefficients, (90, 130), mode="bilinear")
    colours = full.permute(2, 0, 1).float()
    want = (planes[:, :3] * colours).sum(1) + 255 * planes[:, 3]
    monkeypatch.setattr("engine.codec.detail.BAND_BYTES", band_bytes)
    result = apply(coefficients, full).permute(2, 0, 1)
    assert (result - want.clamp(0, 255)).abs().max().item() < 0.51


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (3, 7)])
def test_odd_shapes(height: int, width: int) -> None:
    full = photo(height, width)
    small = full[: max(1, height // 2), : max(1, width // 2)].contiguous()
    assert guided_upsample(full, small, small).shape == full.shape


def test_working_sizes_that_differ_are_refused() -> None:
    full = photo(20, 20)
    with pytest.raises(ValueError, match="sizes differ"):
        guided_upsample(full, full[:10], full[:8])
