"""Each streamed layer equals the layer on the whole image, for any heights of bands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from engine.model.layers import BlurDown, BlurUp
from engine.runtime.tiled.bands import Border, blur_down, padded_conv, up_conv, windows

torch.manual_seed(0)
HEAD = nn.Conv2d(3, 4, kernel_size=7).double().requires_grad_(False)
DOWN = nn.Conv2d(3, 4, kernel_size=3, stride=2, padding=1).double().requires_grad_(False)
UPSAMPLINGS: dict[str, list[nn.Module]] = {
    "transpose": [nn.ConvTranspose2d(3, 4, kernel_size=3, stride=2, padding=1, output_padding=1).double()],
    "resize": [nn.Sequential(nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(3, 4, 3)).double()],
    "nearest": [nn.Upsample(scale_factor=2), nn.Conv2d(3, 4, 3, padding=1).double()],
    "blur": [BlurUp(3).double(), nn.Conv2d(3, 4, 3, padding=1).double()],
}


def cut(image: Tensor, heights: list[int]) -> Iterator[Tensor]:
    """Split [1, C, H, W] into bands whose heights repeat `heights`."""
    first, turn = 0, 0
    while first < image.shape[2]:
        yield image[:, :, first : first + heights[turn % len(heights)]]
        first += heights[turn % len(heights)]
        turn += 1


def assert_same(bands: Iterator[Tensor], whole: Tensor) -> None:
    torch.testing.assert_close(torch.cat(list(bands), dim=2), whole, rtol=0, atol=1e-12)


cuts = st.lists(st.integers(1, 9), min_size=1, max_size=4)
sides = st.integers(4, 40)


@settings(max_examples=40, deadline=None)
@given(height=sides, width=sides, heights=cuts)
def test_reflected_convolution(height: int, width: int, heights: list[int]) -> None:
    image = torch.randn(1, 3, height, width, dtype=torch.float64)
    whole = HEAD(nn.ReflectionPad2d(3)(image))
    assert_same(padded_conv(HEAD, 3, cut(image, heights)), whole)


@settings(max_examples=40, deadline=None)
@given(height=sides, width=sides, heights=cuts)
def test_strided_convolution(height: int, width: int, heights: list[int]) -> None:
    image = torch.randn(1, 3, 2 * height, 2 * width, dtype=torch.float64)
    assert_same(padded_conv(DOWN, 1, cut(image, heights), "zero"), DOWN(image))


@settings(max_examples=20, deadline=None)
@given(height=sides, width=sides, heights=cuts)
@pytest.mark.parametrize(("pad", "border"), [(nn.ReplicationPad2d, "repeat"), (nn.ZeroPad2d, "zero")])
def test_other_borders(pad: type[nn.Module], border: Border, height: int, width: int, heights: list[int]) -> None:
    image = torch.randn(1, 3, height, width, dtype=torch.float64)
    assert_same(padded_conv(HEAD, 3, cut(image, heights), border), HEAD(pad(3)(image)))


@settings(max_examples=20, deadline=None)
@given(height=sides, width=sides, heights=cuts)
def test_filtered_down_sampling(height: int, width: int, heights: list[int]) -> None:
    image = torch.randn(1, 3, 2 * height, 2 * width, dtype=torch.float64)
    layer = BlurDown(3).double()
    assert_same(blur_down(layer, cut(image, heights)), layer(image))


@settings(max_examples=30, deadline=None)
@given(height=sides, width=sides, heights=cuts)
@pytest.mark.parametrize("layers", UPSAMPLINGS.values(), ids=UPSAMPLINGS.keys())
def test_up_sampling(layers: list[nn.Module], height: int, width: int, heights: list[int]) -> None:
    image = torch.randn(1, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        assert_same(up_conv(layers, cut(image, heights)), nn.Sequential(*layers)(image))


def test_a_row_is_written_only_after_its_place_was_read() -> None:
    """A segment can overwrite its own input because of this."""
    rows_read = rows_written = 0

    def watched() -> Iterator[Tensor]:
        nonlocal rows_read
        for band in cut(torch.zeros(1, 3, 40, 8, dtype=torch.float64), [1, 3, 2]):
            rows_read += band.shape[2]
            yield band

    for band in padded_conv(HEAD, 3, watched()):
        rows_written += band.shape[2]
        assert rows_written <= rows_read
    assert rows_written == 40


def test_an_image_too_low_to_reflect_is_an_error() -> None:
    with pytest.raises(ValueError, match="more than 3 rows"):
        list(windows([torch.zeros(1, 1, 3, 8)], kernel=7, top=3, bottom=3, border="reflect"))
