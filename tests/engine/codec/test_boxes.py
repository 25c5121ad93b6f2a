"""Remarks on boxes and chunks of AVIF, HEIC, JPEG XL and WebP; repair of an AVIF without the size of its alpha."""

from __future__ import annotations

import io
import struct

import numpy as np
import pillow_heif
import pillow_jxl  # noqa: F401  # registers the format with Pillow
import pytest
from PIL import Image, UnidentifiedImageError

from engine.codec.boxes import with_size_of_alpha
from engine.codec.header import inspect
from tests.images import encoded, picture


def translucent() -> Image.Image:
    image = picture(64, 48)
    image.putalpha(Image.linear_gradient("L").resize((64, 48)))
    return image


def without_size_of_alpha(avif: bytes) -> bytes:
    """Replace the size (property 1) of an AVIF's alpha item (2) by a repeated other property."""
    at = avif.index(b"ipma") + 12
    data = bytearray(avif)
    while at < len(data):
        item, count = struct.unpack_from(">HB", data, at)
        if item == 2:
            assert data[at + 3] == 1
            data[at + 3] = data[at + 4]
            return bytes(data)
        at += 3 + count
    raise AssertionError("no alpha")


def notes_of(data: bytes) -> tuple[str, ...]:
    found = inspect(data, 10_000_000)
    return (*found.notes, *found.metadata.notes)


def test_an_avif_without_the_size_of_its_alpha_has_the_same_pixels() -> None:
    intact = encoded(translucent(), "AVIF")
    bad = without_size_of_alpha(intact)
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(bad))
    found = inspect(bad, 10_000_000)
    assert (found.format, found.mode, found.width, found.height) == ("AVIF", "RGBA", 64, 48)
    with Image.open(io.BytesIO(found.data)) as repaired, Image.open(io.BytesIO(intact)) as expected:
        np.testing.assert_array_equal(np.asarray(repaired), np.asarray(expected))


@pytest.mark.parametrize("data", [b"", b"\x00\x00\x00\x20ftypavif", encoded(picture(), "AVIF"), encoded(picture())])
def test_other_files_are_returned_unchanged(data: bytes) -> None:
    assert with_size_of_alpha(data) == data


@pytest.mark.parametrize("cut", [40, 100, 200, 300, 400])
def test_a_truncated_file_is_returned_unchanged(cut: int) -> None:
    bad = without_size_of_alpha(encoded(translucent(), "AVIF"))[:cut]
    assert with_size_of_alpha(bad) == bad


def heic() -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(picture()).save(file, quality=80)
    return file.getvalue()


def jxl() -> bytes:
    return encoded(picture(), "JXL", use_container=True)


@pytest.mark.parametrize(
    ("data", "format"), [(encoded(picture(), "AVIF"), "AVIF"), (heic(), "HEIF"), (jxl(), "JXL")], ids=lambda x: x[:4]
)
def test_boxes_that_are_not_carried_over_are_named(data: bytes, format: str) -> None:
    assert not [note for note in notes_of(data) if "left out" in note]
    box = struct.pack(">I4s16s", 24, b"uuid", b"maker of cameras")
    assert f"left out: {format} boxes uuid" in notes_of(data + box)


def test_items_and_auxiliary_images_that_are_not_carried_over_are_named() -> None:
    avif = encoded(translucent(), "AVIF")
    exif = encoded(picture(), "AVIF", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")
    assert "left out: AVIF boxes jumb" in notes_of(exif.replace(b"Exif", b"jumb", 1))
    depth = avif.replace(b"cicp:systems:auxiliary:alpha", b"cicp:systems:auxiliary:depth")
    assert "left out: AVIF boxes urn:mpeg:mpegB:cicp:systems:auxiliary:depth" in notes_of(depth)


def test_chunks_of_a_webp_that_are_not_carried_over_are_named() -> None:
    data = encoded(picture(), "WEBP", exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")
    assert not [note for note in notes_of(data) if "left out" in note]
    data += struct.pack("<4sI", b"C2PA", 3) + b"abc\x00"
    data = data[:4] + struct.pack("<I", len(data) - 8) + data[8:]
    assert "left out: WebP chunks C2PA" in notes_of(data)
