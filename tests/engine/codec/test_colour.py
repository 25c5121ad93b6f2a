"""Convert photos of any mode and profile to sRGB, and results back to the photo's profile."""

from __future__ import annotations

import io
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from engine.codec.colour import (
    BAND_PIXELS,
    Colours,
    adobe_rgb_icc,
    flatten,
    from_image,
    from_pixels,
    has_black,
    open_profile,
    space_of,
    srgb_icc,
    to_profile,
)

U8 = NDArray[np.uint8]
RANDOM = np.random.default_rng(11).integers(0, 256, (40, 50, 3), dtype=np.uint8)
GRAY_RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def profile(space: bytes, tags: dict[bytes, bytes], device: bytes = b"mntr") -> bytes:
    """Return a profile of ICC version 2 with these tags."""
    table, values = struct.pack(">I", len(tags)), b""
    at = 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(values), len(value))
        values += value + bytes(-len(value) % 4)
    header = struct.pack(">I4xI4s4s4s12x4s", at + len(values), 0x02100000, device, space, b"XYZ ", b"acsp")
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + values


def gray_profile(gamma: float) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"gray\0" + bytes(78)
    return profile(b"GRAY", {b"desc": name, b"wtpt": white, b"kTRC": curve}, b"mntr")


def load(image: Image.Image, format: str, **options: Any) -> Image.Image:
    """Save an image and open it again, as a photo from an archive is opened."""
    file = io.BytesIO()
    image.save(file, format, **options)
    opened = Image.open(file)
    opened.load()
    return opened


def srgb_to_linear(levels: U8) -> NDArray[np.float64]:
    x = levels / 255
    return np.asarray(np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4))


def adobe_by_formula(levels_HWC: U8) -> U8:
    """Convert Adobe RGB (1998) to sRGB by the formulas of both specifications, whose white is D65."""
    to_xyz = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
    to_srgb = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = ((levels_HWC / 255) ** (563 / 256)) @ (to_srgb @ to_xyz).T
    linear = linear.clip(0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray((encoded * 255).round(), np.uint8)


# Profiles.


def test_pixels_without_a_profile_are_unchanged() -> None:
    colours = from_pixels(RANDOM)
    assert colours.pixels is RANDOM
    assert (colours.icc, colours.notes) == (None, ())


def test_pixels_with_an_srgb_profile_are_unchanged() -> None:
    assert from_pixels(RANDOM, srgb_icc()).pixels is RANDOM
    assert from_pixels(RANDOM, srgb_icc()).icc == srgb_icc()
    assert to_profile(RANDOM, srgb_icc()).pixels is RANDOM


def test_a_profile_that_is_only_named_srgb_is_applied() -> None:
    impostor = adobe_rgb_icc().replace(b"Adobe RGB (1998) compatible", b"sRGB IEC61966-2.1\0\0\0\0\0\0\0\0\0\0")
    assert "sRGB" in (open_profile(impostor).profile.profile_description or "")
    assert np.abs(from_pixels(RANDOM, impostor).pixels.astype(int) - RANDOM).max() > 20


def test_adobe_rgb_is_converted_by_the_formulas_of_the_specifications() -> None:
    colours = from_pixels(RANDOM, adobe_rgb_icc())
    difference = np.abs(colours.pixels.astype(int) - adobe_by_formula(RANDOM))
    assert difference.max() <= 2
    assert colours.icc == srgb_icc()


def test_round_trip_through_a_wider_profile() -> None:
    """Colours inside sRGB's gamut are restored within rounding."""
    there = to_profile(RANDOM, adobe_rgb_icc())
    assert there.icc == adobe_rgb_icc()
    back = from_pixels(there.pixels, there.icc)
    assert np.abs(there.pixels.astype(int) - RANDOM).max() > 20
    assert np.abs(back.pixels.astype(int) - RANDOM).mean() < 0.6


@pytest.mark.parametrize("icc", [b"", b"no profile", srgb_icc()[:200], srgb_icc()[:128] + bytes(460)])
def test_a_broken_profile_is_treated_as_srgb_with_a_remark(icc: bytes) -> None:
    for colours in (from_pixels(RANDOM, icc), from_image(Image.fromarray(RANDOM), icc), to_profile(RANDOM, icc)):
        np.testing.assert_array_equal(colours.pixels, RANDOM)
        assert len(colours.notes) == 1
        assert "profile" in colours.notes[0]
        assert colours.icc in (None, srgb_icc())


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_profile_raises_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    icc = bytearray(adobe_rgb_icc())
    for at in random.integers(0, len(icc), 6):
        icc[at] = random.integers(0, 256)
    colours = from_pixels(RANDOM, bytes(icc))
    assert colours.pixels.shape == RANDOM.shape


def test_a_profile_of_another_colour_space_is_ignored_with_a_remark() -> None:
    colours = from_image(Image.fromarray(RANDOM).convert("CMYK"), srgb_icc())
    assert "not CMYK" in colours.notes[0]
    assert "not RGB" in from_image(Image.fromarray(RANDOM), gray_profile(2.2)).notes[0]
    assert "no translated photo" in to_profile(RANDOM, gray_profile(2.2)).notes[0]


def test_equal_runs_embed_equal_profiles() -> None:
    assert srgb_icc()[24:36] == struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    assert space_of(srgb_icc()) == space_of(adobe_rgb_icc()) == "RGB"


def test_threads_share_a_transform() -> None:
    photos = [np.random.default_rng(i).integers(0, 256, (300, 400, 3), dtype=np.uint8) for i in range(12)]
    alone = [from_pixels(photo, adobe_rgb_icc()).pixels for photo in photos]
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda photo: from_pixels(photo, adobe_rgb_icc()).pixels, photos))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_decoders_own_pixels_may_be_overwritten() -> None:
    for pixels in (RANDOM.copy(), np.repeat(GRAY_RAMP[..., None], 3, axis=2)):
        expected = from_pixels(pixels.copy(), adobe_rgb_icc()).pixels
        result = from_pixels(pixels, adobe_rgb_icc(), overwrite=True).pixels
        assert result is pixels
        np.testing.assert_array_equal(result, expected)


def test_bands_leave_no_seam() -> None:
    column = np.repeat(RANDOM.reshape(-1, 1, 3), 2, axis=1)
    tall = np.tile(column, (BAND_PIXELS // column[:, :, 0].size + 1, 1, 1))
    assert tall[:, :, 0].size > BAND_PIXELS
    expected = from_pixels(RANDOM, adobe_rgb_icc()).pixels.reshape(-1, 1, 3)
    result = from_pixels(tall, adobe_rgb_icc()).pixels
    np.testing.assert_array_equal(result, np.tile(np.repeat(expected, 2, axis=1), (len(tall) // len(expected), 1, 1)))


# Kinds of image.


def test_gray_stays_gray() -> None:
    colours = from_image(Image.fromarray(GRAY_RAMP))
    np.testing.assert_array_equal(colours.pixels, np.repeat(GRAY_RAMP[..., None], 3, axis=-1))


def test_a_gray_profile_is_applied_to_gray_images_and_to_gray_pixels_decoded_as_rgb() -> None:
    icc = gray_profile(1.0)
    colours = from_image(Image.fromarray(GRAY_RAMP), icc)
    np.testing.assert_array_equal(from_pixels(np.repeat(GRAY_RAMP[..., None], 3, axis=-1), icc).pixels, colours.pixels)
    np.testing.assert_allclose(srgb_to_linear(colours.pixels[:, :, 1]), GRAY_RAMP / 255, atol=0.006)
    assert colours.icc == srgb_icc()


@pytest.mark.parametrize("mode", ["1", "P", "L", "RGB", "RGBX", "YCbCr", "HSV"])
def test_every_mode_gives_rgb(mode: str) -> None:
    image = Image.fromarray(RANDOM).convert(mode)
    colours = from_image(image)
    assert colours.alpha is None
    assert colours.pixels.dtype == np.uint8
    np.testing.assert_array_equal(colours.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray_is_rounded_not_clipped(format: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    image = load(Image.fromarray(values), format)
    assert from_image(image).pixels[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_16_bit_rgb_tiff() -> None:
    """The file is assembled here because Pillow cannot write 16-bit RGB."""
    values = np.array([[[0, 32896, 65535], [257, 25700, 65278]]], "<u2")
    rows = [(256, 2), (257, 1), (258, 16), (259, 1), (262, 2), (273, 134), (277, 3), (278, 1), (279, 12), (284, 1)]
    entries = [struct.pack("<HHII", tag, 3 if tag != 273 else 4, 1, value) for tag, value in rows]
    entries[2] = struct.pack("<HHII", 258, 3, 3, 146)
    tiff = b"II*\0" + struct.pack("<IH", 8, len(rows)) + b"".join(entries) + bytes(4)
    tiff = tiff.ljust(134, b"\0") + values.tobytes() + struct.pack("<3H", 16, 16, 16)
    with Image.open(io.BytesIO(tiff)) as image:
        image.load()
        assert from_image(image).pixels.tolist() == [[[0, 128, 255], [1, 100, 254]]]


def test_a_guessed_white_of_large_integers_is_a_remark() -> None:
    plain = from_image(Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], np.float32)))
    assert (plain.pixels[0, :, 0].tolist(), plain.notes) == ([0, 128, 255, 0], ())
    guessed = from_image(Image.fromarray(np.array([[0, 50_000, 100_000]], np.int32)))
    assert guessed.pixels[0, :, 0].tolist() == [0, 128, 255]
    assert "100000" in guessed.notes[0]


def test_lab_is_converted_to_srgb() -> None:
    lab = ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), lab, "RGB", "LAB")
    smooth = Image.fromarray(RANDOM).resize((8, 6))
    image = load(ImageCms.applyTransform(smooth, transform) or smooth, "TIFF")
    assert image.mode == "LAB"
    colours = from_image(image, b"a profile that does not matter")
    assert np.abs(colours.pixels.astype(int) - np.asarray(smooth)).max() <= 8, "8-bit Lab is coarse"


# CMYK.


@pytest.mark.parametrize("with_marker", [True, False])
def test_cmyk_jpegs_with_and_without_adobes_marker(with_marker: bool) -> None:
    """Adobe's programs store inverted ink and write a marker; without the marker 255 is full ink."""
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 1:3] = 255  # magenta and yellow: red
    file = io.BytesIO()
    stored = Image.frombytes("CMYK", (16, 16), ink.tobytes())
    stored.save(file, "JPEG", quality=100)  # Pillow inverts and writes the marker
    data = file.getvalue()
    if not with_marker:
        at = data.index(b"\xff\xee")
        data = data[:at] + data[at + 2 + struct.unpack_from(">H", data, at + 2)[0] :]
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        pixels = from_image(image).pixels
    expected = [255, 0, 0] if with_marker else [0, 0, 0]
    assert np.abs(pixels.astype(int) - expected).max() <= 3


# Alpha.


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_alpha_is_separated_from_the_colours(mode: str) -> None:
    alpha = np.arange(40 * 50, dtype=np.uint8).reshape(40, 50) | 128
    image = Image.fromarray(np.dstack([RANDOM, alpha]))
    if mode in ("LA", "La"):
        image = image.convert("LA").convert(mode)
    elif mode == "PA":
        image = image.convert("RGB").quantize(64).convert("PA")
        image.putalpha(Image.fromarray(alpha))
    else:
        image = image.convert(mode)
    colours = from_image(image)
    assert colours.alpha is not None
    np.testing.assert_array_equal(colours.alpha, alpha)
    assert colours.pixels.shape == (40, 50, 3)


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 7, 7)), ("P", 7)])
def test_a_transparent_colour_becomes_alpha(mode: str, key: Any) -> None:
    image = Image.fromarray(np.repeat(GRAY_RAMP[..., None], 3, axis=-1)).convert("L").convert(mode)
    colours = from_image(load(image, "PNG", transparency=key))
    assert colours.alpha is not None
    assert int((colours.alpha == 0).sum()) == 1


def test_an_opaque_alpha_is_dropped() -> None:
    image = Image.fromarray(RANDOM).convert("RGBA")
    colours = from_image(image)
    assert colours.alpha is None
    np.testing.assert_array_equal(colours.pixels, RANDOM)


def test_a_profile_is_applied_to_images_with_alpha() -> None:
    image = Image.fromarray(np.dstack([RANDOM, np.full((40, 50), 100, np.uint8)]))
    np.testing.assert_array_equal(
        from_image(image, adobe_rgb_icc()).pixels, from_pixels(RANDOM, adobe_rgb_icc()).pixels
    )


def test_flatten_composes_on_white() -> None:
    alpha = np.zeros((40, 50), np.uint8)
    alpha[:, 25:] = 255
    flat = flatten(RANDOM, alpha)
    assert (flat[:, :25] == 255).all()
    np.testing.assert_array_equal(flat[:, 25:], RANDOM[:, 25:])


def test_photos_one_pixel_wide_or_high() -> None:
    for shape in ((1, 60_000), (60_000, 1), (1, 1)):
        pixels = np.full((*shape, 3), 90, np.uint8)
        assert isinstance(from_pixels(pixels, adobe_rgb_icc()), Colours)
        assert from_image(Image.fromarray(pixels), adobe_rgb_icc()).pixels.shape == (*shape, 3)


def test_a_transparent_value_of_16_bit_gray_becomes_alpha() -> None:
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", transparency=4096)
    with Image.open(io.BytesIO(buffer.getvalue())) as image:
        image.load()
        assert image.mode == "I;16"
        colours = from_image(image)
    assert colours.alpha is not None
    np.testing.assert_array_equal(colours.alpha, np.where(values == 4096, 0, 255))


def ycc_profile() -> bytes:
    """Return an RGB profile for YCbCr data (sYCC) with a lookup table of 9x9x9 values (ICC.1:2001, 6.5).

    Its zero is Y = 0 and Cb = Cr = -1/2, which is green.
    """
    levels = np.linspace(0, 1, 9)
    y, cb, cr = np.meshgrid(levels, levels - 0.5, levels - 0.5, indexing="ij")
    rgb = np.clip(np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1), 0, 1)
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    flat = (rgb.reshape(1, -1, 3) * 255).round().astype(np.uint8)
    lab = np.asarray(to_lab.apply(Image.fromarray(flat))).astype(np.int32)
    a, b = lab[..., 1].astype(np.uint8).view(np.int8), lab[..., 2].astype(np.uint8).view(np.int8)
    grid = np.stack(
        [lab[..., 0] * 0xFF00 // 255, (a.astype(np.int32) + 128) * 256, (b.astype(np.int32) + 128) * 256], -1
    )
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    ramp = struct.pack(">2H", 0, 65535) * 3
    table = b"mft2" + bytes(4) + bytes((3, 3, 9, 0)) + identity + struct.pack(">2H", 2, 2) + ramp
    table += np.clip(grid, 0, 65535).astype(">u2").tobytes() + ramp
    tags = {b"A2B0": table, b"A2B1": table, b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)}
    tags[b"desc"] = b"desc" + bytes(4) + struct.pack(">I", 5) + b"sYCC\0" + bytes(78)
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0"
    body, rows, at = b"", b"", 132 + 12 * len(tags)
    for tag, value in tags.items():
        rows += tag + struct.pack(">II", at + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", at + len(body), bytes(4), 0x02400000, b"mntr", b"RGB ", b"Lab ", bytes(12), b"acsp"
    )
    head = (head + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0")
    return head + struct.pack(">I", len(tags)) + rows + body


def test_a_profile_without_black_is_applied_without_black_point_compensation() -> None:
    """Neutral gray in YCbCr stays neutral; compensation for a green black would make it magenta."""
    gray = np.zeros((4, 4, 3), np.uint8)
    gray[..., 0], gray[..., 1:] = 128, 128
    found = from_pixels(gray, ycc_profile()).pixels.astype(int)
    assert np.ptp(found, axis=-1).max() <= 6
    assert np.abs(found - 128).max() <= 12


def test_ordinary_profiles_have_a_black() -> None:
    assert has_black(open_profile(adobe_rgb_icc()), "RGB")
    assert has_black(open_profile(srgb_icc()), "RGB")
    assert not has_black(open_profile(ycc_profile()), "RGB")
