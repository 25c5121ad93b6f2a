"""Read headers without decoding; refuse files that are too large or no images."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.codec.header import inspect, inspect_record
from engine.config import DecodeConfig
from engine.errors import SkipImage
from engine.options import Options, Size
from engine.records import Failed, Record
from tests.images import bomb, encoded, oriented, photo, picture

LIMIT = 10_000_000


def record(key: str, data: bytes, size: str = "native") -> Record[bytes]:
    return Record(key=key, payload=data, options=Options(size=Size.parse(size)))


def test_format_mode_size_and_orientation() -> None:
    seen = inspect(oriented(6), LIMIT)
    assert (seen.format, seen.mode, seen.width, seen.height) == ("JPEG", "RGB", 61, 43)
    assert (seen.metadata.orientation, seen.frames, seen.progressive, seen.num_pixels) == (6, 1, False, 61 * 43)
    assert inspect(photo(progressive=True), LIMIT).progressive
    assert inspect(encoded(picture().convert("CMYK")), LIMIT).mode == "CMYK"


def test_number_of_frames_of_an_animation() -> None:
    frames = [picture(seed=i) for i in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert inspect(data, LIMIT).frames == 3


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"These are words, whatever the name says.", "not an image"),
        (b"\xff\xd8\xff", "not an image|header cannot be read"),
        (bomb(), "4,225.0 megapixels in the file are over the limit of 10.0"),
    ],
)
def test_unacceptable_files_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(SkipImage, match=reason):
        inspect(data, LIMIT)


def test_the_pixel_limit_is_inclusive() -> None:
    data = photo(20, 10)
    assert inspect(data, 200).num_pixels == 200
    with pytest.raises(SkipImage, match="--max-pixels"):
        inspect(data, 199)


def test_a_thin_image_may_not_be_enlarged_beyond_the_limit() -> None:
    """A line of 65,000 pixels with a short side of 256 would be 4 gigapixels."""
    thin = encoded(picture(65_000, 1), "PNG")
    failed = inspect_record(record("thin.png", thin, "256"), DecodeConfig())
    assert isinstance(failed, Failed)
    assert "megapixels at working size" in failed.reason


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_without_other_errors(tail: bytes) -> None:
    for head in (
        b"",
        b"\xff\xd8\xff\xe1",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\x00\x01\x00\x00WEBP",
        b"II*\x00",
        b"BM",
    ):
        outcome = record("x", head + tail).attempt("inspect", lambda r: inspect(r.payload, LIMIT))
        assert outcome.reason if isinstance(outcome, Failed) else outcome.payload.num_pixels <= LIMIT


def test_a_bad_image_fails_in_the_inspect_stage() -> None:
    failed = inspect_record(record("b", b"words"), DecodeConfig())
    assert isinstance(failed, Failed)
    assert (failed.key, failed.stage) == ("b", "inspect")
    assert failed.timings["inspect"] > 0
