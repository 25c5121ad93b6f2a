"""Recognise image formats by the first bytes of a file."""

from __future__ import annotations

import pytest

from engine.codec.kinds import HEAD_BYTES, suffix_of_content
from tests.images import photo


@pytest.mark.parametrize(
    ("format", "suffix"),
    [
        ("JPEG", ".jpg"), ("PNG", ".png"), ("GIF", ".gif"), ("BMP", ".bmp"), ("TIFF", ".tif"), ("WEBP", ".webp"),
        ("AVIF", ".avif"), ("JPEG2000", ".jp2"), ("PPM", ".pnm"), ("ICO", ".ico"), ("MPO", ".jpg"),
    ],
)  # fmt: skip
def test_formats_that_pillow_writes_are_recognised(format: str, suffix: str) -> None:
    assert suffix_of_content(photo(48, 48, format=format)[:HEAD_BYTES]) == suffix


@pytest.mark.parametrize(
    ("head", "suffix"),
    [
        (b"\0\0\0\x18ftypcrx ", ".cr3"),
        (b"\0\0\0\x18ftypheic", ".heic"),
        (b"II*\0\x10\0\0\0CR\2\0", ".cr2"),
        (b"MM\0+\0\x08\0\0", ".tif"),
        (b"\xff\x0a\xfa", ".jxl"),
        (b"8BPS\0\1", ".psd"),
        (b"FUJIFILMCCD-RAW 0201", ".raf"),
    ],
)
def test_signatures_of_cameras_and_other_programs_are_recognised(head: bytes, suffix: str) -> None:
    assert suffix_of_content(head) == suffix


@pytest.mark.parametrize(
    "head",
    [b"", b"words", b"BMW is a car, not a bitmap", b"P6", b"PK\3\4", b"\0\0\0\x18ftypisom", b"RIFF\0\0\0\0WAVE"],
)
def test_anything_else_is_no_image(head: bytes) -> None:
    assert suffix_of_content(head) is None
