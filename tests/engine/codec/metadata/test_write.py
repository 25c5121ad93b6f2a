"""Write metadata to every output format, read back by exiftool."""

from __future__ import annotations

import io
import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import simplejpeg
from PIL import Image

from engine.codec.colour import srgb_icc
from engine.codec.metadata.correct import for_output
from engine.codec.metadata.write import into_encoded, save_arguments
from engine.records import NOTHING, Metadata
from tests.images import described

PIXELS = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
FORMATS = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "WEBP": "webp", "AVIF": "avif"}
WRITTEN = {
    "IFD0:Make": "Kamera",
    "IFD0:Model": "K-1",
    "IFD0:Artist": "Ada",
    "IFD0:Copyright": "Ada, all rights reserved",
    "ExifIFD:DateTimeOriginal": "2019:08:14 09:30:00",
    "ExifIFD:FNumber": 5.6,
    "ExifIFD:LensModel": "35mm",
    "GPS:GPSLatitude": 37.7456,
    "GPS:GPSLongitude": 119.5936,
    "XMP-xmp:Rating": 4,
    "XMP-dc:Title": "Half Dome, früh",
    "IPTC:City": "Yosemite",
    "IPTC:Keywords": ["granite", "sunrise"],
}
"""Tags of a photo, by the names and in the notation of exiftool."""

pillow_heif.register_heif_opener()


def encode(metadata: Metadata, format: str) -> bytes:
    """Encode a small image with `metadata` as the engine does."""
    file = io.BytesIO()
    if format == "HEIF":  # not an output format of the engine; written here as an input
        blocks = {"exif": metadata.exif, "xmp": metadata.xmp, "icc_profile": metadata.icc}
        Image.fromarray(PIXELS).save(file, format, **{name: block for name, block in blocks.items() if block})
        return file.getvalue()
    if format == "JPEG":
        file.write(simplejpeg.encode_jpeg(PIXELS))
    else:
        options: dict[str, Any] = {"compression": "tiff_lzw"} if format == "TIFF" else {}
        Image.fromarray(PIXELS).save(file, format, **options, **save_arguments(metadata, format))
    data, notes = into_encoded(file.getvalue(), metadata, format)
    assert notes == [] or metadata.iptc is not None
    return data


def exiftool(*arguments: str | Path) -> str:
    """Run exiftool and fail on its warnings and errors."""
    done = subprocess.run(["exiftool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tags(path: Path) -> dict[str, Any]:
    """Return all tags of a file by group and name, with numeric values unformatted."""
    found: dict[str, Any] = json.loads(exiftool("-j", "-n", "-G1", "-a", path))[0]
    return found


@pytest.fixture(scope="module")
def rich_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photo with metadata written by exiftool: orientation 6, a thumbnail, a profile."""
    folder = tmp_path_factory.mktemp("rich")
    path, thumbnail = folder / "rich.jpg", folder / "thumbnail.jpg"
    path.write_bytes(simplejpeg.encode_jpeg(PIXELS))
    thumbnail.write_bytes(simplejpeg.encode_jpeg(PIXELS[:9, :12].copy()))
    icc = folder / "profile.icc"
    icc.write_bytes(srgb_icc())
    written = [
        f"-{tag}={item}" for tag, value in WRITTEN.items() for item in (value if isinstance(value, list) else [value])
    ]
    exiftool(
        "-n", "-q", "-overwrite_original", "-codedcharacterset=utf8", *written,
        "-IFD0:Orientation=6", "-XMP-tiff:Orientation=6", "-ExifIFD:ExifImageWidth=40", "-ExifIFD:ExifImageHeight=30",
        "-GPS:GPSLatitudeRef=N", "-GPS:GPSLongitudeRef=W", f"-ThumbnailImage<={thumbnail}", f"-ICC_Profile<={icc}",
        path,
    )  # fmt: skip
    return path


@pytest.mark.needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_exiftool_finds_the_metadata_in_every_output_format(rich_photo: Path, tmp_path: Path, format: str) -> None:
    source = described(rich_photo.read_bytes())
    assert source.orientation == 6
    path = tmp_path / f"out.{FORMATS[format]}"
    path.write_bytes(encode(for_output(source, 30, 40), format))
    found = tags(path)
    for tag, value in WRITTEN.items():
        if not tag.startswith("IPTC") or format in ("JPEG", "PNG", "TIFF"):
            assert found[tag] == (pytest.approx(value) if isinstance(value, float) else value), tag
    assert found.get("IFD0:Orientation", 1) == 1
    assert found["XMP-tiff:Orientation"] == 1
    assert (found["ExifIFD:ExifImageWidth"], found["ExifIFD:ExifImageHeight"]) == (30, 40)
    assert found["GPS:GPSLongitudeRef"] == "W"
    assert found["ICC_Profile:ProfileDescription"] == "sRGB built-in"
    assert not any("Thumbnail" in tag for tag in found)
    assert "ExifTool:Warning" not in found
    assert "ExifTool:Error" not in found


@pytest.mark.needs_exiftool
@pytest.mark.parametrize("source_format", ["PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_metadata_of_every_container_is_carried_over_to_jpeg(
    rich_photo: Path, tmp_path: Path, source_format: str
) -> None:
    between = encode(for_output(described(rich_photo.read_bytes()), 30, 40), source_format)
    path = tmp_path / "out.jpg"
    path.write_bytes(encode(for_output(described(between), 30, 40), "JPEG"))
    found = tags(path)
    for tag, value in WRITTEN.items():
        if not tag.startswith("IPTC") or source_format in ("PNG", "TIFF"):
            assert found[tag] == (pytest.approx(value) if isinstance(value, float) else value), tag
    assert "ExifTool:Warning" not in found


@pytest.mark.needs_exiftool
def test_a_makernote_stays_readable(tmp_path: Path) -> None:
    """exiftool finds the values only if the MakerNote's offsets from the start of EXIF are still right."""
    serial = b"SERIAL0042\x00\x00"
    note_at = 8 + 2 + 2 * 12 + 4 + 8 + 2 + 12 + 4
    value_at = note_at + 2 + 12 + 4
    note = struct.pack("<HHHII", 1, 0x0096, 2, len(serial), value_at) + bytes(4) + serial
    block = b"II*\0" + struct.pack("<I", 8)
    block += struct.pack("<HHHI4s", 2, 0x010F, 2, 6, struct.pack("<I", 38))
    block += struct.pack("<HHII", 0x8769, 4, 1, 46) + bytes(4) + b"Canon\0\0\0"
    block += struct.pack("<HHHII", 1, 0x927C, 7, len(note), note_at) + bytes(4) + note
    path = tmp_path / "out.jpg"
    path.write_bytes(encode(for_output(Metadata(exif=block), 30, 40), "JPEG"))
    assert tags(path)["Canon:InternalSerialNumber"] == "SERIAL0042"


@pytest.mark.parametrize("format", FORMATS)
def test_writing_metadata_does_not_change_the_pixels(format: str) -> None:
    metadata = Metadata(xmp=b"<x/>", iptc=b"\x1c\x02\x50\x00\x03Ada", icc=srgb_icc(), dpi=(300, 300))
    with (
        Image.open(io.BytesIO(encode(metadata, format))) as with_metadata,
        Image.open(io.BytesIO(encode(NOTHING, format))) as without,
    ):
        np.testing.assert_array_equal(np.asarray(with_metadata), np.asarray(without))


@pytest.mark.parametrize("format", FORMATS)
def test_empty_metadata_adds_no_bytes(format: str) -> None:
    assert save_arguments(NOTHING, format) == {}
    assert into_encoded(b"as it is", NOTHING, format) == (b"as it is", [])


def test_a_long_profile_is_split_into_segments() -> None:
    icc = bytes(range(256)) * 700
    with Image.open(io.BytesIO(encode(Metadata(icc=icc), "JPEG"))) as image:
        assert image.info["icc_profile"] == icc


def test_resolution_goes_into_the_jfif_header() -> None:
    with Image.open(io.BytesIO(encode(Metadata(dpi=(299.99, 150)), "JPEG"))) as image:
        assert image.info["dpi"] == (300, 150)


def test_metadata_too_large_for_a_jpeg_segment_is_a_remark() -> None:
    jpeg, notes = into_encoded(simplejpeg.encode_jpeg(PIXELS), Metadata(xmp=b"x" * 70_000, comment=b"here"), "JPEG")
    assert len(notes) == 1
    assert notes[0].startswith("XMP dropped: 70029 bytes")
    assert described(jpeg) == Metadata(comment=b"here")


@pytest.mark.parametrize(("format", "lost"), [("WEBP", 1), ("BMP", 2), ("JPEG", 0), ("PNG", 0)])
def test_metadata_that_a_format_cannot_hold_is_a_remark(format: str, lost: int) -> None:
    metadata = Metadata(xmp=b"<x/>", iptc=b"\x1c\x02\x50\x00\x03Ada")
    data = simplejpeg.encode_jpeg(PIXELS)
    assert len(into_encoded(data, metadata, format)[1]) == lost


def test_texts_and_comments_are_carried_over() -> None:
    texts = (("Author", "Ada"), ("Title", "früh"))
    assert described(encode(Metadata(texts=texts), "PNG")).texts == texts
    assert described(encode(Metadata(comment=b"on the way up"), "JPEG")).comment == b"on the way up"


def test_equal_metadata_is_encoded_to_equal_bytes() -> None:
    metadata = Metadata(xmp=b"<x/>", iptc=b"\x1c\x02\x50\x00\x03Ada", icc=srgb_icc(), dpi=(300, 300))
    for format in ("JPEG", "PNG", "TIFF", "WEBP"):
        assert encode(metadata, format) == encode(metadata, format)
