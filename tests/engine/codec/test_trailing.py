"""Name what follows the end of an image, which no result has a place for."""

from __future__ import annotations

import pytest

from tests.images import described, photo

VIDEO = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + b"x" * 2000


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("behind", "remark"),
    [
        (VIDEO, "left out: 2,024 bytes behind the end of the image (a video)"),
        (b"PK\x03\x04" + b"y" * 96, "left out: 100 bytes behind the end of the image (a ZIP archive)"),
        (b"vendor data", "left out: 11 bytes behind the end of the image"),
    ],
)
def test_data_behind_the_end_are_named(format: str, behind: bytes, remark: str) -> None:
    assert described(photo(format=format) + behind).notes == (remark,)


def test_a_second_jpeg_behind_the_first_is_named() -> None:
    second = photo(seed=1)
    assert described(photo() + second).notes == (
        f"left out: {len(second):,} bytes behind the end of the image (another JPEG)",
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("behind", [b"", bytes(1000), b"\xff" * 64, b"\r\n", b"\x01\x02"])
def test_padding_is_not_named(format: str, behind: bytes) -> None:
    assert described(photo(format=format) + behind).notes == ()


def test_a_thumbnail_in_the_header_is_not_taken_for_a_second_image() -> None:
    whole = photo()
    thumbnail = photo(8, 8)
    segment = b"\xff\xe5" + (len(thumbnail) + 2).to_bytes(2) + thumbnail
    notes = described(whole[:2] + segment + whole[2:] + VIDEO).notes
    assert notes[-1] == "left out: 2,024 bytes behind the end of the image (a video)"
    assert not any("behind" in note for note in described(whole[:2] + segment + whole[2:]).notes)
