"""Limits on the frames and parts that a file's header may announce."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.codec.bounds import MAX_FRAMES, MAX_PARTS, count_frames, require_bounded
from engine.codec.header import inspect
from engine.errors import SkipImage
from tests.images import encoded, photo, picture

LIMIT = 10_000_000


def gif(frames: int, comments: int = 0) -> bytes:
    """Return a GIF of 1x1 frames with `comments` comment sub-blocks in front of the first."""
    comment = b"\x21\xfe" + b"\x01x" * comments + b"\0" if comments else b""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    header = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0)
    return header + bytes(6) + comment + frame * frames + b";"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("frames", [1, 2, 17])
def test_frames_of_a_gif_are_counted_as_by_pillow(frames: int) -> None:
    pictures = [picture(seed=i) for i in range(frames)]
    data = encoded(pictures[0], "GIF", save_all=True, append_images=pictures[1:])
    assert count_frames(data, "GIF") == inspect(data, LIMIT).frames == frames


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}])
def test_pages_of_a_tiff_are_counted(options: dict[str, bool]) -> None:
    pictures = [picture(seed=i) for i in range(3)]
    data = encoded(pictures[0], "TIFF", save_all=True, append_images=pictures[1:], **options)
    assert count_frames(data, "TIFF") == inspect(data, LIMIT).frames == 3


def test_a_loop_of_tiff_directories_is_counted_once() -> None:
    directory = struct.pack("<HI", 0, 8)
    assert count_frames(b"II*\0" + struct.pack("<I", 8) + directory, "TIFF") == 1


def test_counting_frames_stops_at_the_limit() -> None:
    data = gif(20 * MAX_FRAMES)
    assert inspect(data, LIMIT).frames == MAX_FRAMES


def test_frames_of_other_formats_are_not_counted() -> None:
    assert count_frames(photo(format="WEBP"), "WEBP") is None


def test_millions_of_parts_before_the_pixels_are_refused() -> None:
    jpeg, png = photo(), photo(format="PNG")
    many = 2 * MAX_PARTS
    hostile = {
        "segments": jpeg[:2] + b"\xff\xe5\0\2" * many + jpeg[2:],
        "fill bytes": jpeg[:2] + b"\xff" * many + jpeg[2:],
        "chunks": png[:33] + chunk(b"teSt", b"") * many + png[33:],
        "comments": gif(1, comments=many),
    }
    for name, data in hostile.items():
        with pytest.raises(SkipImage, match="parts precede its pixels"):
            inspect(data, LIMIT)
        assert name


def test_ordinary_images_are_within_the_limits() -> None:
    profile = bytes(3_000_000)
    for data in (
        photo(),
        photo(format="PNG"),
        gif(2, comments=1000),
        encoded(picture(), "JPEG", comment=b"x" * 60_000),
        encoded(picture(), "PNG", icc_profile=profile),
    ):
        require_bounded(data)


@given(
    st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0+"]), st.binary(max_size=300)
)
def test_damaged_files_are_walked_without_errors(head: bytes, tail: bytes) -> None:
    data = head + tail
    require_bounded(data)
    for format in ("GIF", "TIFF"):
        assert (count_frames(data, format) or 0) >= 1
