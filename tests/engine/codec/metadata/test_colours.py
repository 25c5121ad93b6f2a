"""Name colours that a file describes without a profile and that are not converted."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from engine.codec import boxes
from engine.codec.colour import srgb_icc
from tests.images import described, photo, png_chunk, png_with

LINEAR = png_chunk(b"gAMA", struct.pack(">I", 100_000))
SRGB_GAMMA = png_chunk(b"gAMA", struct.pack(">I", 45_455))
WIDE = png_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000))
SRGB_PRIMARIES = png_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))
SRGB = png_chunk(b"sRGB", b"\x00")


@pytest.mark.parametrize(
    ("chunks", "remark"),
    [
        ((LINEAR,), "the photo is taken as sRGB, without its gamma (1)"),
        ((SRGB_GAMMA, WIDE), "the photo is taken as sRGB, without its primaries (cHRM)"),
        ((LINEAR, WIDE), "the photo is taken as sRGB, without its gamma (1) and its primaries (cHRM)"),
        (
            (png_chunk(b"cICP", bytes([9, 16, 0, 1])),),
            "the photo is taken as sRGB, without its colour space (BT.2020, PQ)",
        ),
        (
            (png_chunk(b"cICP", bytes([12, 13, 0, 1])),),
            "the photo is taken as sRGB, without its colour space (Display P3)",
        ),
    ],
)
def test_colours_of_a_png_that_are_not_srgb_are_named(chunks: tuple[bytes, ...], remark: str) -> None:
    assert described(png_with(photo(format="PNG"), *chunks)).notes == (remark,)


@pytest.mark.parametrize(
    "chunks", [(SRGB_GAMMA, SRGB_PRIMARIES), (LINEAR, SRGB), (png_chunk(b"cICP", bytes([1, 13, 0, 1])),)]
)
def test_colours_that_mean_srgb_need_no_remark(chunks: tuple[bytes, ...]) -> None:
    assert described(png_with(photo(format="PNG"), *chunks)).notes == ()


def test_a_profile_counts_more_than_the_chunks_beside_it() -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG", icc_profile=srgb_icc())
    assert described(png_with(file.getvalue(), LINEAR)).notes == ()


def test_code_points_of_an_avif_are_named() -> None:
    data = photo(64, 64, format="AVIF")
    assert described(data).notes == ()
    at = data.index(b"nclx") + 4
    wide = data[:at] + struct.pack(">HH", 9, 18) + data[at + 4 :]
    assert boxes.code_points(wide) == (9, 18)
    assert described(wide).notes == ("the photo is taken as sRGB, without its colour space (BT.2020, HLG)",)
