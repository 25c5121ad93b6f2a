"""Headers are read, bombs refused, and chunks kept small."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.codec.header import chunks, inspect
from engine.config import DecodeConfig
from engine.errors import SkipImage
from engine.options import Options, Size
from engine.records import Failed, Record
from tests.images import bomb, encoded, oriented, photo, picture

LIMIT = 10_000_000
SMALL, LARGE = photo(16, 16), photo(60, 50)


def record(key: str, data: bytes, size: str = "native") -> Record[bytes]:
    return Record(key=key, payload=data, options=Options(size=Size.parse(size)))


def test_a_header_tells_format_mode_size_and_orientation() -> None:
    seen = inspect(oriented(6), LIMIT)
    assert (seen.format, seen.mode, seen.width, seen.height) == ("JPEG", "RGB", 61, 43)
    assert (seen.metadata.orientation, seen.frames, seen.progressive, seen.num_pixels) == (6, 1, False, 61 * 43)
    assert inspect(photo(progressive=True), LIMIT).progressive
    assert inspect(encoded(picture().convert("CMYK")), LIMIT).mode == "CMYK"


def test_an_animation_tells_how_many_frames_it_has() -> None:
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
def test_what_is_no_acceptable_image_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(SkipImage, match=reason):
        inspect(data, LIMIT)


def test_the_limit_is_inclusive() -> None:
    data = photo(20, 10)
    assert inspect(data, 200).num_pixels == 200
    with pytest.raises(SkipImage, match="--max-pixels"):
        inspect(data, 199)


def test_a_thin_picture_may_not_grow_past_the_limit() -> None:
    """Given 65,000 pixels in one line, when the short side is to be 256, then 4 gigapixels would have to be made."""
    thin = encoded(picture(65_000, 1), "PNG")
    (chunk,) = chunks([record("thin.png", thin, "256")], DecodeConfig())
    assert chunk is not None
    (failed,) = chunk
    assert isinstance(failed, Failed)
    assert "megapixels at working size" in failed.reason


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_can_do_more_than_be_refused(tail: bytes) -> None:
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


KINDS = st.sampled_from(["small", "large", "bad", "failed", "tick"])


@settings(max_examples=50, deadline=None)
@given(kinds=st.lists(KINDS, max_size=20), images=st.integers(1, 5), pixels=st.integers(256, 5000))
def test_chunks_keep_the_order_and_their_bounds(kinds: list[str], images: int, pixels: int) -> None:
    def item(i: int, kind: str) -> Record[bytes] | Failed | None:
        if kind == "tick":
            return None
        if kind == "failed":
            return Failed(key=str(i), stage="read", reason="r")
        return record(str(i), {"small": SMALL, "large": LARGE, "bad": b"words"}[kind])

    config = DecodeConfig(chunk_images=images, chunk_pixels=pixels)
    order: list[str | None] = []
    for chunk in chunks([item(i, kind) for i, kind in enumerate(kinds)], config):
        if chunk is None:
            order.append(None)
            continue
        good = [i for i in chunk if not isinstance(i, Failed)]
        assert 1 <= len(chunk) <= images
        assert len(good) <= 1 or sum(i.payload.num_pixels for i in good) <= pixels
        order += [i.key for i in chunk]
    assert order == [None if kind == "tick" else str(i) for i, kind in enumerate(kinds)]


def test_a_bad_image_fails_in_its_place() -> None:
    (chunk,) = chunks([record("a", SMALL), record("b", b"words"), record("c", SMALL)], DecodeConfig())
    assert chunk is not None
    assert [type(item) for item in chunk] == [Record, Failed, Record]
    assert isinstance(chunk[1], Failed)
    assert (chunk[1].key, chunk[1].stage) == ("b", "inspect")
