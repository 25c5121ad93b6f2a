"""Turn images by their EXIF orientation and resample them like Pillow, with premultiplied alpha."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from engine.codec.geometry import resize, resize_with_alpha, upright
from tests.engine.codec.metadata.test_correct import exif
from tests.images import encoded, picture, turned

PIXELS = np.random.default_rng(7).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_turns_as_pillow_does(orientation: int) -> None:
    with Image.open(io.BytesIO(encoded(Image.fromarray(PIXELS), "PNG", exif=exif(orientation)))) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(turned(PIXELS, orientation), expected)
    np.testing.assert_array_equal(turned(PIXELS[:, :, 0], orientation), expected[:, :, 0])


@pytest.mark.parametrize("orientation", [2, 3, 4, 6, 7, 8])
def test_mirrored_images_are_copied_once(orientation: int) -> None:
    """`flip` of a transposed image is transposed, and making it contiguous takes the image's memory once more."""
    pixels = np.random.default_rng(0).integers(0, 256, (150, 70, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(encoded(Image.fromarray(pixels), "PNG", exif=exif(orientation)))) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    result_HWC = upright(torch.from_numpy(pixels), orientation)
    assert result_HWC.is_contiguous()
    np.testing.assert_array_equal(result_HWC.numpy(), expected)


def test_orientations_of_a_small_array() -> None:
    pixels_HWC = torch.arange(6, dtype=torch.uint8).reshape(2, 3, 1).repeat(1, 1, 3)
    turned = {n: upright(pixels_HWC, n)[..., 0].tolist() for n in range(1, 9)}
    assert turned[1] == [[0, 1, 2], [3, 4, 5]]
    assert turned[3] == [[5, 4, 3], [2, 1, 0]]
    assert turned[6] == [[3, 0], [4, 1], [5, 2]]
    assert turned[8] == [[2, 5], [1, 4], [0, 3]]


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ((1200, 900), (341, 256)),
        ((300, 200), (75, 50)),
        ((61, 43), (256, 180)),
        ((61, 43), (61, 256)),
        ((1000, 40), (100, 400)),
        ((17, 23), (16, 16)),
        ((1, 1), (16, 16)),
        ((40, 1), (80, 16)),
    ],
)
def test_resizing_equals_pillows_bicubic_within_one_step_nearly_everywhere(
    stored: tuple[int, int], asked: tuple[int, int]
) -> None:
    image = picture(*stored)
    expected = np.asarray(image.resize(asked, Image.Resampling.BICUBIC)).astype(np.int16)
    result = resize(torch.from_numpy(np.array(image)), *asked)
    assert result.is_contiguous()
    difference = np.abs(result.numpy().astype(np.int16) - expected)
    # Both use fixed-point arithmetic, PyTorch with fewer bits: a few values next to steep edges differ by more.
    assert (difference > 1).mean() < 0.002
    assert difference.max() <= 4


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_colours_of_transparent_pixels_do_not_bleed_into_edges(dtype: torch.dtype) -> None:
    """The left half is opaque orange, the right half transparent black."""
    white = 255 if dtype == torch.uint8 else 65535
    orange = torch.tensor([240, 150, 19]) * (white // 255)
    pixels_HWC = torch.zeros((64, 64, 3), dtype=torch.int32)
    pixels_HWC[:, :31] = orange.to(torch.int32)
    alpha_HW = torch.zeros((64, 64), dtype=torch.uint8)
    alpha_HW[:, :31] = 255
    resized_HWC, resized_alpha_HW = resize_with_alpha(pixels_HWC.to(dtype), alpha_HW, 16, 16)
    assert resized_alpha_HW is not None
    seen = resized_alpha_HW > 16
    assert resized_HWC.dtype == dtype
    assert ((resized_alpha_HW > 0) & (resized_alpha_HW < 255)).any()
    difference = (resized_HWC.to(torch.int32)[seen] - orange.to(torch.int32)).abs()
    assert difference.max() <= 2 * (white // 255)


def test_opaque_pixels_are_resized_as_without_alpha() -> None:
    pixels_HWC = torch.from_numpy(np.array(picture(64, 48)))
    alpha_HW = torch.full((48, 64), 255, dtype=torch.uint8)
    resized_HWC, _ = resize_with_alpha(pixels_HWC, alpha_HW, 32, 24)
    assert (resized_HWC.int() - resize(pixels_HWC, 32, 24).int()).abs().max() <= 1


def test_16_bits_are_resized_in_16_bits() -> None:
    ramp = torch.linspace(1000, 1255, 64).to(torch.uint16)[None, :, None].expand(48, 64, 3)
    resized = resize(ramp, 32, 24)
    assert resized.dtype == torch.uint16
    assert len(set(resized.int().flatten().tolist())) > 20
