"""Decode images as Pillow does, upright and at working size; a bad image fails alone."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.codec.decode import Decoder
from engine.codec.geometry import resize
from engine.codec.header import inspect
from engine.config import DecodeConfig
from engine.errors import SkipImage
from engine.options import Options, Size
from engine.records import DecodedImage, Failed, Inspected, Record
from tests.engine.codec.metadata.test_correct import exif
from tests.images import bomb, encoded, flipped, oriented, photo, picture, pixels


def decoded(*images: bytes, size: str = "native", **config: Any) -> list[DecodedImage | str]:
    """Decode in one chunk; a failed image is represented by its reason."""
    options = Options(size=Size.parse(size))
    chunk: list[Record[Inspected] | Failed] = []
    for i, data in enumerate(images):
        record = Record(key=str(i), payload=data, options=options)
        chunk.append(record.attempt("inspect", lambda r: inspect(r.payload, 10_000_000)))
    results = Decoder(DecodeConfig(workers=1, chunk_images=len(images), **config))(chunk)
    assert [result.key for result in results] == [item.key for item in chunk]
    return [result.reason if isinstance(result, Failed) else result.payload for result in results]


def one(data: bytes, size: str = "native") -> DecodedImage:
    (result,) = decoded(data, size=size)
    assert isinstance(result, DecodedImage), result
    return result


def array(result: DecodedImage | str) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    assert isinstance(result, DecodedImage), result
    return result.pixels_HWC.numpy().astype(np.int16)


FORMATS: dict[str, Callable[[], bytes]] = {
    "JPEG": photo,
    "JPEG 4:4:4": lambda: photo(subsampling=0),
    "JPEG progressive": lambda: photo(progressive=True),
    "JPEG gray": lambda: encoded(picture().convert("L")),
    "JPEG CMYK": lambda: encoded(picture().convert("CMYK")),
    "JPEG that stores RGB": lambda: photo(keep_rgb=True),
    "PNG": lambda: photo(format="PNG"),
    "PNG gray": lambda: encoded(picture().convert("L"), "PNG"),
    "PNG 1 bit": lambda: encoded(picture().convert("1"), "PNG"),
    "PNG palette": lambda: encoded(picture().quantize(16), "PNG"),
    "WebP": lambda: photo(format="WEBP"),
    "WebP lossless": lambda: photo(format="WEBP", lossless=True),
    "TIFF": lambda: photo(format="TIFF"),
    "TIFF LZW": lambda: photo(format="TIFF", compression="tiff_lzw"),
    "GIF": lambda: photo(format="GIF"),
    "AVIF": lambda: photo(format="AVIF"),
    "JPEG 2000": lambda: photo(format="JPEG2000"),
    "BMP": lambda: photo(format="BMP"),
    "PPM": lambda: photo(format="PPM"),
    "TGA": lambda: photo(format="TGA"),
}


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_has_the_pixels_that_pillow_reads(name: str) -> None:
    """Within rounding: versions of the libraries behind DALI and Pillow differ."""
    data = FORMATS[name]()
    result = array(one(data))
    assert result.shape == (43, 61, 3)
    assert np.abs(result - pixels(data)).max() <= 2


def test_a_whole_chunk_of_mixed_formats_stays_in_order() -> None:
    images = [make() for make in FORMATS.values()]
    for data, result in zip(images, decoded(*images), strict=True):
        assert np.abs(array(result) - pixels(data)).max() <= 2


DAMAGE: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text named .jpg": lambda: b"These are words.",
    "JPEG cut": lambda: photo(200, 150)[:-2000],
    "JPEG cut in its header": lambda: photo()[:100],
    "JPEG progressive cut": lambda: photo(200, 150, progressive=True)[:-500],
    "JPEG gray cut": lambda: encoded(picture(200, 150).convert("L"))[:-1000],
    "JPEG CMYK cut": lambda: encoded(picture(200, 150).convert("CMYK"))[:-1000],
    "PNG cut": lambda: photo(200, 150, format="PNG")[:-3000],
    "PNG flipped": lambda: flipped(photo(200, 150, format="PNG")),
    "WebP cut": lambda: photo(200, 150, format="WEBP")[:-500],
    "GIF cut": lambda: photo(200, 150, format="GIF")[:3000],
    "AVIF cut": lambda: photo(200, 150, format="AVIF")[:-200],
    "TIFF cut": lambda: photo(200, 150, format="TIFF")[:-3000],
    "JPEG 2000 cut": lambda: photo(200, 150, format="JPEG2000")[:-3000],
    "bomb": bomb,
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_a_bad_image_fails_alone(name: str) -> None:
    """Its neighbours in the chunk have the same pixels as when decoded alone."""
    first, last = photo(seed=1), photo(format="PNG", seed=2)
    before, bad, after = decoded(first, DAMAGE[name](), last)
    assert isinstance(bad, str), "it must fail"
    assert bad
    assert "\n" not in bad
    assert np.array_equal(array(before), array(one(first)))
    assert np.array_equal(array(after), array(one(last)))


def test_a_jpeg_with_flipped_bits_is_refused_unless_damage_is_allowed() -> None:
    data = flipped(photo(400, 300, quality=95), 0.5)
    (refused,) = decoded(data)
    assert isinstance(refused, str)
    assert refused.startswith("damaged: ")
    assert "--allow-damaged" in refused
    (allowed,) = decoded(data, allow_damaged=True)
    assert array(allowed).shape == (300, 400, 3)


@pytest.mark.parametrize("name", ["JPEG", "JPEG 4:4:4", "JPEG gray"])
def test_a_jpeg_has_the_same_pixels_with_and_without_the_search_for_damage(name: str) -> None:
    """libjpeg-turbo decodes with the search, DALI without it."""
    data = FORMATS[name]()
    (strict,), (lenient,) = decoded(data), decoded(data, allow_damaged=True)
    assert np.array_equal(array(strict), array(lenient))


def test_all_bad_images_of_a_chunk_fail_each_with_its_reason() -> None:
    results = decoded(*(make() for make in DAMAGE.values()))
    assert all(isinstance(result, str) for result in results)


UPRIGHT = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int, format: str) -> None:
    lossless: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 95, "subsampling": 0},
        "AVIF": {"quality": 95, "subsampling": "4:4:4"},
    }
    result = array(one(oriented(orientation, format, **lossless.get(format, {}))))
    turn = UPRIGHT[orientation]
    expected = np.asarray(picture() if turn is None else picture().transpose(turn)).astype(np.int16)
    assert result.shape == expected.shape
    assert np.abs(result - expected).mean() < 2


def test_images_are_decoded_at_working_size() -> None:
    data = photo(120, 80)
    sizes = {"40": (60, 40), "64x32": (64, 32), "native": (120, 80), "160": (240, 160)}
    assert {size: (one(data, size).width, one(data, size).height) for size in sizes} == sizes


def test_a_turned_photo_is_resized_after_turning() -> None:
    """Stored 61x43 and upright 43x61, so that the short side is the width."""
    result = one(oriented(6), "86")
    assert (result.width, result.height) == (86, 122)


def test_the_first_frame_of_an_animation_is_decoded_with_a_remark() -> None:
    frames = [picture(seed=i) for i in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    result = one(data)
    assert result.notes == ("first of 3 frames",)
    assert np.array_equal(array(result), pixels(data))


def test_a_decoder_works_after_its_library_failed_on_an_image() -> None:
    decoder = Decoder(DecodeConfig(workers=1))
    good, bad = photo(format="PNG"), photo(200, 150, format="PNG")[:-3000]

    def run(data: bytes) -> Record[DecodedImage] | Failed:
        record = Record(key="x", payload=inspect(data, 1_000_000), options=Options(size=Size.parse("native")))
        return decoder([record])[0]

    assert [isinstance(run(data), Failed) for data in (good, bad, good, bad, good)] == [False, True, False, True, False]


def test_a_header_with_a_wrong_height_is_refused() -> None:
    """The frame header of the JPEG has 4 times the height of its data."""
    data = bytearray(photo(64, 64))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 2] = (256).to_bytes(2)
    with Image.open(io.BytesIO(bytes(data))) as image:
        assert image.size == (64, 256)
    (result,) = decoded(bytes(data))
    assert isinstance(result, str)


def test_the_pixel_limit_is_checked_before_decoding() -> None:
    with pytest.raises(SkipImage, match="megapixels"):
        inspect(bomb(), DecodeConfig().max_pixels)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("sides", [(363, 481), (257, 307), (433, 347)])
def test_a_jpeg_decoded_at_a_fraction_is_not_stretched(sides: tuple[int, int], orientation: int) -> None:
    """At 3/8 a decoder returns 137 columns for 363, of which the image covers 136.1."""
    width, height = sides
    stripes = (np.add.outer(np.arange(height) // 9, np.arange(width) // 11) % 2 * 200 + 20).astype(np.uint8)
    data = encoded(Image.fromarray(stripes).convert("RGB"), quality=97, subsampling=0, exif=exif(orientation))
    whole = one(data)
    found = one(data, size="48")
    height, width = found.pixels_HWC.shape[:2]
    expected = resize(whole.pixels_HWC, width, height).numpy().astype(np.int16)
    assert np.abs(array(found) - expected).mean() < 3
