"""Guided upsampling: edges of the photo, colours of the translation, and agreement with the equations."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.codec import detail
from engine.codec.detail import apply, fit, guided_upsample, restore
from engine.codec.geometry import plain_upsample, resize
from engine.options import Detail, Options
from engine.records import DecodedImage, Record


def photo(height: int, width: int) -> Tensor:
    """Return three hard-edged shapes on a soft background with grain: uint8 [H, W, 3]."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    picture = torch.stack((0.3 + 0.4 * y, 0.6 - 0.3 * x, 0.5 + 0.2 * x * y), dim=-1)
    for column, colour in ((0.2, (0.9, 0.2, 0.1)), (0.5, (0.1, 0.7, 0.2)), (0.8, (0.2, 0.3, 0.9))):
        picture[(x - column).square() + (y - 0.5).square() < 0.015] = torch.tensor(colour)
    grain = 0.03 * torch.randn(height, width, 1, generator=torch.Generator().manual_seed(0))
    return ((picture + grain) * 255).clamp(0, 255).to(torch.uint8)


def recolour(pixels_HWC: Tensor) -> Tensor:
    """Recolour like a generator: mix channels, darken, shift."""
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


def test_the_result_has_the_detail_of_the_photo() -> None:
    """The result is much nearer to the recolouring at full size than the enlarged translation."""
    full = photo(300, 460)
    small = resize(full, 115, 75)
    translated = recolour(small)
    want = recolour(full)
    guided = guided_upsample(full, small, translated)
    assert mean_error(guided, want) < mean_error(plain_upsample(translated, 300, 460), want) / 3


def test_an_unchanged_translation_returns_the_photo() -> None:
    full = photo(200, 300)
    small = resize(full, 150, 100)
    assert mean_error(guided_upsample(full, small, small), full) < 1


def test_shapes_that_the_translation_paints_over_are_removed() -> None:
    """A translation to one colour removes the shapes; fine grain may remain."""
    full = photo(120, 160)
    small = resize(full, 80, 60)
    painted = torch.full_like(small, 77)
    result = guided_upsample(full, small, painted)
    assert mean_error(result, torch.full_like(full, 77)) < 0.15 * mean_error(full, torch.full_like(full, 77))


def test_grain_in_flat_areas_is_kept() -> None:
    """The unmodified filter of the paper would smooth it, since the variance there is too small to fit."""
    grain = torch.randint(-2, 3, (120, 160, 1), generator=torch.Generator().manual_seed(0))
    full = (100 + grain).expand(-1, -1, 3).to(torch.uint8).contiguous()
    small = resize(full, 40, 30)
    result = guided_upsample(full, small, torch.full_like(small, 140))
    kept = result.float().std() / full.float().std()
    assert 0.8 < kept.item() < 1.2
    assert abs(result.float().mean().item() - 140) < 1


def test_the_fit_is_the_weighted_ridge_regression_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Solves equations 11 and 12 of the 2013 paper, with weights, for each window and averages by weight."""
    monkeypatch.setattr(detail, "WIDE_SHARE", 0.0)
    rows, columns = 9, 11
    random = torch.Generator().manual_seed(0)
    guide, target = torch.rand(2, 3, 2 * rows, 2 * columns, dtype=torch.float64, generator=random)
    importance = torch.rand(2 * rows, 2 * columns, dtype=torch.float64, generator=random) + 0.1
    affine, total = (
        torch.empty(3, 4, rows, columns, dtype=torch.float64),
        torch.empty(rows, columns, dtype=torch.float64),
    )

    def window(planes: Tensor, y: int, x: int, side: int) -> Tensor:
        top, left = side * max(0, y - detail.RADIUS), side * max(0, x - detail.RADIUS)
        return planes[..., top : side * (y + detail.RADIUS + 1), left : side * (x + detail.RADIUS + 1)].flatten(-2)

    for y in range(rows):
        for x in range(columns):
            inputs, outputs, w = (window(planes, y, x, detail.CELL) for planes in (guide, target, importance))
            total[y, x] = w.mean()
            w = w / w.sum()
            mean_in, mean_out = (inputs * w).sum(1), (outputs * w).sum(1)
            centred = inputs - mean_in[:, None]
            sigma = (centred * w) @ centred.T + detail.EPS * torch.eye(3, dtype=torch.float64)
            weights = torch.linalg.solve(sigma, (centred * w) @ outputs.T).T
            affine[:, :3, y, x] = weights
            affine[:, 3, y, x] = mean_out - weights @ mean_in
    cells = [(y, x) for y in range(rows) for x in range(columns)]
    sums = torch.stack(
        [window(affine * total, y, x, 1).mean(-1) / window(total, y, x, 1).mean(-1) for y, x in cells], -1
    )
    found = fit(guide.float(), target.float(), importance.float())
    torch.testing.assert_close(found.double(), sums.view(3, 4, rows, columns), rtol=0, atol=2e-4)


def test_a_rim_that_the_generator_draws_along_an_edge_is_not_enlarged() -> None:
    """The translation of a bright page on dark ground makes the page bluer and draws a white rim of 5 pixels."""
    scale, side = 6, 96
    page = torch.zeros(side, side, dtype=torch.bool)
    page[24:72, 24:72] = True
    inner = torch.zeros(side, side, dtype=torch.bool)
    inner[29:67, 29:67] = True
    grain = torch.randint(-3, 4, (side, side, 1), generator=torch.Generator().manual_seed(0))
    working = (torch.where(page[..., None], torch.tensor([200, 180, 150]), torch.tensor([40, 35, 30])) + grain).byte()
    translated = working.clone()
    translated[..., 2][page] += 30
    translated[page & ~inner] = torch.tensor([240, 240, 245], dtype=torch.uint8)
    full = working.repeat_interleave(scale, 0).repeat_interleave(scale, 1).contiguous()
    expected = full.int()
    expected[..., 2] += 30 * page.repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    result = guided_upsample(full, working, translated).int()
    inside = slice(25 * scale, 71 * scale)  # the page without the pixel at its edge
    assert (result - expected)[inside, inside].abs().max() <= 12
    plain_rim = (translated.int() - working.int())[26, 40].abs().max()
    assert plain_rim > 60, "the generator's output has the rim"


@pytest.mark.parametrize("contrast", [25, 50, 100, 160])
def test_an_edge_between_two_changes_has_no_halo(contrast: int) -> None:
    """A bright disc becomes paler on an unchanged dark ground; both are right except at the edge itself."""
    height, width, scale = 360, 480, 6
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    distance = ((x - width / 2).square() + (y - height / 2).square()).sqrt() - 110
    outside = torch.sigmoid(distance / 1.5)[..., None]
    grain = 3 * torch.randn(height, width, 1, generator=torch.Generator().manual_seed(0))
    full = 80 - contrast / 4 + contrast * (1 - outside) * torch.tensor([1.0, 0.9, 0.8]) + grain
    expected = (full + torch.tensor([50.0, 60.0, 70.0]) * (1 - outside)).clamp(0, 255)
    full, width, height = full.clamp(0, 255).byte(), width // scale, height // scale
    result = guided_upsample(full, resize(full, width, height), resize(expected.byte(), width, height))
    for near, far in ((-60, -30), (-30, -12), (12, 30), (30, 60)):
        ring = (distance >= near) & (distance < far)
        assert (result.float() - expected)[ring].mean(0).abs().max() <= 1.5, (near, far)


def test_colours_of_transparent_pixels_are_ignored() -> None:
    working = torch.full((32, 32, 3), 120, dtype=torch.uint8)
    translated = working + 20
    alpha = torch.full((32, 32), 255, dtype=torch.uint8)
    alpha[:, 16:] = 0
    translated[:, 16:] = 0
    full = working.repeat_interleave(4, 0).repeat_interleave(4, 1).contiguous()
    result = guided_upsample(full, working, translated, alpha_hw=alpha)
    assert (result[:, :62].int() - 140).abs().max() <= 1


def test_16_bits_keep_a_smooth_sky() -> None:
    """Steps below one of 255 levels are kept although the translation has 8 bits."""
    ramp = torch.linspace(30_000, 30_600, 512).round().to(torch.uint16)
    full = ramp[None, :, None].expand(64, 512, 3).contiguous()
    small = (resize(full, 128, 16).float() / 257 + 0.5).byte()
    result = guided_upsample(full, small, small + 10)
    assert result.dtype == torch.uint16
    steps = result[32, :, 0].int().diff()
    assert (steps >= 0).all()
    assert len(set(result[32, :, 0].tolist())) > 300
    assert ((result.int() - full.int()) - 2570).abs().max() < 200


@pytest.mark.parametrize("way", ["guided", "plain", "none"])
def test_every_detail_mode_keeps_16_bits(way: Detail) -> None:
    deep = torch.randint(20_000, 40_000, (64, 80, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint16)
    deep = resize(resize(deep, 10, 8), 80, 64)
    shown = (deep.float() / 257 + 0.5).byte()
    working = shown if way == "none" else resize(shown, 40, 32)
    image = DecodedImage(working, "PNG", full_HWC=None if way == "none" else shown, deep_HWC=deep, depth=16)
    record = Record(key="a", payload=image.translated(working + 5), options=Options(detail=way))
    (restored,) = restore([record])
    assert isinstance(restored, Record)
    found = restored.payload.deep_HWC
    assert found is not None
    assert found.shape == deep.shape
    tolerance = 300 if way == "guided" else 2000 if way == "plain" else 0
    assert ((found.int() - deep.int()) - 5 * 257).abs().max() <= tolerance
    assert ((found.float() / 257) - restored.payload.pixels_HWC.float()).abs().max() <= 0.51


@pytest.mark.parametrize("depth", [8, 16])
def test_the_result_takes_the_memory_of_an_image_that_nothing_shows(depth: Literal[8, 16]) -> None:
    shown = photo(64, 80)
    deep = (shown.to(torch.int32) * 257).to(torch.uint16) if depth == 16 else None
    working = resize(shown, 40, 32)
    image = DecodedImage(working, "PNG", full_HWC=shown, deep_HWC=deep, depth=depth).translated(working + 5)
    record = Record(key="a", payload=image, options=Options(detail="guided", depth=depth))
    before = shown.clone()
    (kept,) = restore([record])
    assert isinstance(kept, Record)
    assert kept.payload.before_HWC is shown
    assert torch.equal(shown, before)
    (lost,) = restore([record], keeps=lambda key: key != "a")
    assert isinstance(lost, Record)
    assert torch.equal(kept.payload.pixels_HWC, lost.payload.pixels_HWC)
    assert lost.payload.pixels_HWC.data_ptr() == shown.data_ptr()
    assert lost.payload.before_HWC is None
    assert lost.payload.deep_HWC is deep
    if deep is not None:
        assert kept.payload.deep_HWC is not None
        assert torch.equal(kept.payload.deep_HWC.int(), deep.int())


@pytest.mark.parametrize("band_bytes", [1, 50_000, 1 << 30])
def test_bands_change_nothing(band_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    full = photo(90, 130)
    coefficients = torch.rand(3, 4, 30, 43, generator=torch.Generator().manual_seed(0)) / 3
    planes = torch.nn.functional.interpolate(coefficients, (90, 130), mode="bilinear")
    colours = full.permute(2, 0, 1).float()
    want = (planes[:, :3] * colours).sum(1) + 255 * planes[:, 3]
    monkeypatch.setattr("engine.codec.detail.BAND_BYTES", band_bytes)
    result = apply(coefficients, full, torch.empty_like(full)).permute(2, 0, 1)
    assert (result - want.clamp(0, 255)).abs().max().item() < 0.51


class CallCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch has no types there
    """Counts calls of PyTorch's operators."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def test_a_narrow_strip_takes_few_calls() -> None:
    """Each call takes some microseconds, more than the arithmetic of a row of 8 pixels."""
    full = photo(2000, 8)
    coefficients = torch.rand(3, 4, 1000, 4, generator=torch.Generator().manual_seed(0)) / 3
    with CallCounter() as counter:  # type: ignore[no-untyped-call]
        apply(coefficients, full, torch.empty_like(full))
    assert counter.calls < 200


@pytest.mark.parametrize(
    ("size", "coefficients"), [((90, 13), (30, 4)), ((40, 30), (80, 60)), ((7, 200), (7, 50)), ((300, 1), (1, 1))]
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_narrow_and_wide_images_take_the_same_values(
    size: tuple[int, int], coefficients: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(0)
    full = (torch.rand(*size, 3, generator=random) * (255 if dtype == torch.uint8 else 65535)).to(dtype)
    affine = torch.rand(3, 4, *coefficients, generator=random) / 3
    results = []
    for least in (0, 1 << 30):
        monkeypatch.setattr(detail, "LEAST_BAND_PIXELS", least)
        results.append(apply(affine, full, torch.empty_like(full)))
    assert torch.equal(results[0].int(), results[1].int())


@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 2, 9), (2, 31, 40)])
@pytest.mark.parametrize("radius", [1, 5, 8])
def test_windows_are_those_of_pooling(shape: tuple[int, ...], radius: int) -> None:
    planes = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    mean = maximum = planes[None]
    for kernel, padding in (((1, 2 * radius + 1), (0, radius)), ((2 * radius + 1, 1), (radius, 0))):
        mean = F.avg_pool2d(mean, kernel, stride=1, padding=padding, count_include_pad=False)
        maximum = F.max_pool2d(maximum, kernel, stride=1, padding=padding)
    assert torch.equal(detail._box(planes, radius), mean[0])
    assert torch.equal(detail._highest(planes, radius), maximum[0])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (3, 7)])
def test_odd_shapes(height: int, width: int) -> None:
    full = photo(height, width)
    small = full[: max(1, height // 2), : max(1, width // 2)].contiguous()
    assert guided_upsample(full, small, small).shape == full.shape


def test_working_sizes_that_differ_are_refused() -> None:
    full = photo(20, 20)
    with pytest.raises(ValueError, match="sizes differ"):
        guided_upsample(full, full[:10], full[:8])
