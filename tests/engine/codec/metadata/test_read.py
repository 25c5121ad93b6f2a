"""Read metadata from every container without decoding pixels."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from engine.codec.metadata.correct import for_output
from engine.codec.metadata.write import into_tiff
from engine.errors import SkipImage
from engine.records import NOTHING, Metadata
from tests.engine.codec.metadata.test_correct import XMP, exif
from tests.images import described, turned

PIXELS = np.random.default_rng(7).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def photo(format: str, **arguments: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format, **arguments)
    return file.getvalue()


def png_with_tail(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with chunks between its pixels and its end."""
    whole = photo("PNG")
    end = whole.index(b"IEND") - 4
    tail = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return whole[:end] + tail + whole[end:]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF"])
def test_a_plain_photo_has_no_metadata(format: str) -> None:
    assert described(photo(format)) == NOTHING
    assert for_output(NOTHING, 10, 20) is NOTHING


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_from_every_container(format: str, orientation: int) -> None:
    found = described(photo(format, exif=exif(orientation)))
    assert found.orientation == orientation
    assert found.exif is not None
    assert found.exif[:2] in (b"II", b"MM")


def test_the_orientation_of_tiff_and_avif_is_applied_once() -> None:
    """Pillow turns a TIFF while decoding, and reports an AVIF's rotation as EXIF orientation."""
    tiff, avif = photo("TIFF", exif=exif(6)), photo("AVIF", exif=exif(6), quality=100, subsampling="4:4:4")
    for data, orientation in ((tiff, 1), (avif, 6)):
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            pixels = turned(np.asarray(image), described(data).orientation)
        assert pixels.shape == (8, 6, 3)
        assert described(data).orientation == orientation
        assert np.abs(pixels.astype(int) - turned(PIXELS, 6)).mean() < 12


def test_blocks_are_read_from_every_container() -> None:
    icc = b"a profile, unread"
    for format in ("JPEG", "WEBP", "AVIF"):
        found = described(photo(format, exif=exif(), xmp=XMP, icc_profile=icc if format != "AVIF" else None))
        assert found.xmp == XMP, format
        assert found.icc == (icc if format != "AVIF" else None)
        assert found.exif is not None
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    info.add_text("Author", "Ansel")
    found = described(photo("PNG", exif=exif(), pnginfo=info, dpi=(300, 300)))
    assert found.xmp == XMP
    assert found.texts == (("Author", "Ansel"),)
    assert found.dpi == pytest.approx((300, 300), abs=0.01)


def test_png_chunks_behind_the_pixels_are_read_without_decoding() -> None:
    damaged = bytearray(
        png_with_tail(
            (b"eXIf", exif(8)[6:]), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP), (b"tEXt", b"Title\0Half Dome")
        )
    )
    damaged[damaged.index(b"IDAT") + 6] ^= 0xFF  # decoding this fails
    found = described(bytes(damaged))
    assert found.orientation == 8
    assert found.xmp == XMP
    assert found.texts == (("Title", "Half Dome"),)


def test_iptc_is_read_from_jpeg_tiff_and_png() -> None:
    iptc = b"\x1c\x02\x50\x00\x05Ansel"
    resource = b"8BIM\x04\x04\x00\x00" + struct.pack(">I", len(iptc)) + iptc
    other = b"8BIM\x04\x25\x03abc" + struct.pack(">I", 3) + b"xyz\x00"
    jpeg = photo("JPEG")
    body = b"Photoshop 3.0\x00" + other + resource
    jpeg = jpeg[:2] + b"\xff\xed" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]
    assert described(jpeg).iptc == iptc
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type iptc", f"\niptc\n {len(resource)}\n{resource.hex()}\n", zip=True)
    assert described(photo("PNG", pnginfo=info)).iptc == iptc
    assert described(photo("TIFF", tiffinfo={33723: iptc})).iptc == iptc
    assert described(photo("TIFF", tiffinfo={34377: other + resource})).iptc == iptc


def test_iptc_that_photoshop_stored_as_integers_is_read() -> None:
    iptc = b"\x1c\x02\x50\x00\x05Ansel\0\0"
    tiff = bytearray(photo("TIFF", tiffinfo={33723: iptc}))
    entry = tiff.index(struct.pack("<HHI", 33723, 7, len(iptc)))
    tiff[entry + 2 : entry + 8] = struct.pack("<HI", 4, len(iptc) // 4)
    assert described(bytes(tiff)).iptc == iptc


def test_a_jpeg_comment_is_read() -> None:
    assert described(photo("JPEG", comment=b"on the way up")).comment == b"on the way up"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]), st.data())
def test_damage_raises_nothing_but_skip_image(format: str, data: st.DataObject) -> None:
    whole = bytearray(SAMPLES[format])
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = described(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except SkipImage:
        return
    assert for_output(found, 10, 20).orientation == 1


SAMPLES = {
    format: photo(format, exif=exif(), **({} if format in ("PNG", "TIFF") else {"xmp": XMP}))
    for format in ("JPEG", "PNG", "WEBP", "TIFF")
}


IPTC = b"\x1c\x02\x50\x00\x05Ansel"


def resource(number: int, content: bytes) -> bytes:
    return b"8BIM" + struct.pack(">HHI", number, 0, len(content)) + content + bytes(len(content) % 2)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(*segments: bytes) -> bytes:
    whole = photo("JPEG")
    return whole[:2] + b"".join(segments) + whole[2:]


def in_text(name: str, block: bytes) -> str:
    """Encode a profile as ImageMagick does."""
    return f"\n{name}\n{len(block):8d}\n{block.hex()}\n"


@pytest.mark.parametrize(
    ("keyword", "block", "field", "expected"),
    [
        ("Raw profile type exif", b"Exif\0\0" + exif()[6:], "exif", exif()[6:]),
        ("Raw profile type APP1", b"Exif\0\0" + exif()[6:], "exif", exif()[6:]),
        ("Raw profile type APP1", b"http://ns.adobe.com/xap/1.0/\0" + XMP, "xmp", XMP),
        ("Raw profile type xmp", XMP, "xmp", XMP),
        ("Raw profile type iptc", resource(0x0404, IPTC), "iptc", IPTC),
        ("Raw profile type 8bim", resource(0x0404, IPTC), "iptc", IPTC),
        ("IPTC profile", IPTC, "iptc", IPTC),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_profiles_in_png_texts_are_read(
    keyword: str, block: bytes, field: str, expected: bytes, compressed: bool
) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(keyword, in_text(field, block), zip=compressed)
    found = described(photo("PNG", pnginfo=info))
    assert getattr(found, field) == expected
    assert found.texts == ()


def test_iptc_spread_over_segments_is_read_whole() -> None:
    long = b"\x1c\x02\x78\xff\xff" + bytes(65535)
    block = resource(0x0404, IPTC + long)
    parts = [segment(0xED, b"Photoshop 3.0\0" + part) for part in (block[:60_000], block[60_000:])]
    assert described(with_segments(*parts)).iptc == IPTC + long
    apart = [segment(0xED, b"Photoshop 3.0\0" + resource(number, IPTC)) for number in (0x0425, 0x0404)]
    found = described(with_segments(*apart))
    assert found.iptc == IPTC
    assert found.notes == ("left out: Photoshop's settings besides IPTC",)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def test_exif_xmp_and_iptc_of_jpeg_2000_are_read() -> None:
    boxes = {
        "4a706754696666457869662d3e4a5032": exif(),
        "be7acfcb97a942e89c71999491e3afac": XMP,
        "33c7a4d2b81d4723a0baf1a3e097ad38": IPTC,
        "b14bf8bd083d4b43a5ae8cd7d5a6ce03": b"geo",
    }
    data = photo("JPEG2000") + b"".join(box(b"uuid", bytes.fromhex(name) + body) for name, body in boxes.items())
    found = described(data)
    assert (found.exif, found.xmp, found.iptc) == (exif()[6:], XMP, IPTC)
    assert found.orientation == 6
    assert found.notes == ("left out: GeoTIFF (GeoJP2)",)


def test_xmp_of_a_gif_is_read() -> None:
    whole = photo("GIF")
    trailer = b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    at = whole.index(b"\x2c", 13 + 3 * 2 ** ((whole[10] & 7) + 1))
    data = whole[:at] + b"\x21\xff\x0bXMP DataXMP" + XMP + trailer + whole[at:]
    assert described(data).xmp == XMP


def test_xmp_in_utf_16_becomes_utf_8() -> None:
    packet = XMP.decode().replace("old picture", "früh")
    found = described(photo("JPEG", xmp=packet.encode("utf-16")))
    assert found.xmp == packet.encode()


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (with_segments(segment(0xE2, b"MPF\0II*\0")), "left out: APP2 MPF"),
        (with_segments(segment(0xEB, b"JP\0\1abc"), segment(0xE4, b"Vendor\0")), "left out: APP11 JP, APP4 Vendor"),
        (png_with_tail((b"tIME", bytes(7)), (b"caBX", b"claims")), "left out: PNG chunks tIME, caBX"),
        (photo("TIFF", tiffinfo={33550: (1.0, 1.0, 0.0)}), "left out: GeoTIFF tags"),
        (photo("TIFF", tiffinfo={65000: "private"}), "left out: TIFF tags 65000"),
    ],
)
def test_metadata_that_is_left_out_is_a_remark(data: bytes, note: str) -> None:
    assert described(data).notes == (note,)


def test_the_bytes_of_tiff_texts_are_kept_in_any_encoding() -> None:
    text = "Bäume über Zürich, 雪の山".encode() + b"\0"
    source = photo("TIFF")
    tiff = into_tiff(source, Metadata(exif=exif_with(0x013B, text)))
    found = described(tiff)
    assert found.exif is not None
    assert text in found.exif
    assert text in into_tiff(source, found)


def exif_with(tag: int, text: bytes) -> bytes:
    block = b"MM\0*\0\0\0\x08" + struct.pack(">HHHII", 1, tag, 2, len(text), 26) + bytes(4)
    return block + text
