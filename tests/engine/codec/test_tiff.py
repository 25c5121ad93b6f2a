"""Read TIFF directories in both byte orders and sizes, find damaged strips, recognise RAW photos."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import tifffile

from engine.codec import tiff
from engine.codec.damage import Damaged
from engine.codec.decode import Decoder
from engine.codec.header import inspect
from engine.config import DecodeConfig
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


def test_a_palette_of_0_to_255_is_not_black() -> None:
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colours = np.random.default_rng(0).integers(0, 256, (3, 256))
    expected = np.moveaxis(colours[:, indices], 0, -1)
    old, new = (
        written(indices, photometric="palette", colormap=(colours * scale).astype(np.uint16)) for scale in (1, 257)
    )
    np.testing.assert_array_equal(decoded(old).pixels_HWC.numpy(), expected)
    np.testing.assert_array_equal(decoded(new).pixels_HWC.numpy(), expected)
