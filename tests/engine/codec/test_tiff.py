"""Read TIFF directories in both byte orders and sizes, find damaged strips, recognise RAW photos."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile

from engine.codec import tiff
from engine.codec.damage import Damaged
from engine.codec.decode import Decoder
from engine.codec.header import inspect
from engine.config import DecodeConfig
from engine.errors import SkipImage
from engine.options import Options, Size
from engine.records import DecodedImage, Failed, Record
from tests.images import encoded, flipped, photo, picture, zeroed

ARRAY = np.array(picture(200, 150))


def written(array: Any = ARRAY, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **options)
    return buffer.getvalue()


def decoded(data: bytes, **options: Any) -> DecodedImage:
    record = Record(key="a", payload=inspect(data, 1_000_000), options=Options(size=Size.parse("native"), **options))
    (result,) = Decoder(DecodeConfig())([record])
    assert not isinstance(result, Failed), result
    return result.payload


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_tags_are_read_in_both_byte_orders_and_sizes(byteorder: str, bigtiff: bool) -> None:
    text = "früh".encode()
    data = written(photometric="rgb", byteorder=byteorder, bigtiff=bigtiff, description=text, rowsperstrip=50)
    tags = tiff.first_directory(data)
    assert tags[tiff.BITS].integers() == (8, 8, 8)
    assert len(tags[tiff.STRIP_OFFSETS].integers()) == 3
    assert tags[270].data.rstrip(b"\0") == text
    assert tiff.bits(data) == 8
    assert not tiff.is_raw(data)
    np.testing.assert_array_equal(decoded(data).pixels_HWC.numpy(), ARRAY)


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "jpeg"])
def test_damage_in_a_strip_is_found(compression: str) -> None:
    whole = photo(400, 300, format="TIFF", compression=compression)
    tiff.check(whole)
    with pytest.raises(Damaged, match="strip of the TIFF"):
        tiff.check(zeroed(whole, 0.3, 1000))


def test_flipped_bits_in_a_deflate_strip_are_damage() -> None:
    with pytest.raises(Damaged, match="deflate strip"):
        tiff.check(flipped(photo(400, 300, format="TIFF", compression="tiff_adobe_deflate"), 0.5))


@pytest.mark.parametrize("data", [b"", b"II*\0", b"MM\0*\0\0\0\x08", b"II+\0" + bytes(20), encoded(picture())])
def test_other_files_have_no_tags(data: bytes) -> None:
    assert dict(tiff.first_directory(data)) == {}
    assert not tiff.is_raw(data)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_thumbnail_before_the_photo_is_not_taken_for_it(byteorder: str, bigtiff: bool) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, byteorder=byteorder, bigtiff=bigtiff) as file:
        file.write(ARRAY[::8, ::8], photometric="rgb", subfiletype=1, metadata=None, description="of both")
        file.write(ARRAY, photometric="rgb", metadata=None)
    result = decoded(buffer.getvalue())
    np.testing.assert_array_equal(result.pixels_HWC.numpy(), ARRAY)
    assert result.notes == ("left out: a smaller copy of the photo that the file begins with",)
    assert result.metadata.exif is not None
    assert b"of both" in result.metadata.exif


def test_a_photo_below_its_thumbnail_is_found() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(ARRAY[::8, ::8], photometric="rgb", subfiletype=1, metadata=None, subifds=1)
        file.write(ARRAY, photometric="rgb", metadata=None)
    np.testing.assert_array_equal(decoded(buffer.getvalue()).pixels_HWC.numpy(), ARRAY)


def test_a_page_that_is_no_smaller_copy_stays_first() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(ARRAY[::8, ::8], photometric="rgb", metadata=None)
        file.write(ARRAY, photometric="rgb", metadata=None)
    assert tiff.with_photo_first(buffer.getvalue(), frozenset()) == buffer.getvalue()


def test_directories_in_a_circle_end() -> None:
    data = bytearray(written(ARRAY[::8, ::8], photometric="rgb", subfiletype=1))
    at = tiff.first_offset(bytes(data))
    (count,) = struct.unpack_from("<H", data, at)
    struct.pack_into("<I", data, at + 2 + 12 * count, at)
    assert tiff.with_photo_first(bytes(data), frozenset()) == bytes(data)


def test_a_tiff_without_a_directory_is_refused_with_a_reason() -> None:
    with pytest.raises(SkipImage, match="directory of the TIFF is broken"):
        inspect(b"II*\0" + bytes(4), 1_000_000)


def test_a_palette_of_0_to_255_is_not_black() -> None:
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colours = np.random.default_rng(0).integers(0, 256, (3, 256))
    expected = np.moveaxis(colours[:, indices], 0, -1)
    old, new = (
        written(indices, photometric="palette", colormap=(colours * scale).astype(np.uint16)) for scale in (1, 257)
    )
    np.testing.assert_array_equal(decoded(old).pixels_HWC.numpy(), expected)
    np.testing.assert_array_equal(decoded(new).pixels_HWC.numpy(), expected)
