"""Metadata is read without decoding, from every container, and corrected for the output."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin

from engine.codec.metadata.correct import corrected_xmp, for_output
from engine.codec.metadata.read import read, stripped, upright
from engine.records import NOTHING, Metadata

PIXELS = np.random.default_rng(7).integers(0, 256, (6, 8, 3), dtype=np.uint8)
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:t="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
    b' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    b' t:Orientation="6" exif:PixelXDimension="4000" exif:ColorSpace="65535" photoshop:ICCProfile="Adobe RGB (1998)"'
    b' xmp:Rating="5"><exif:PixelYDimension>3000</exif:PixelYDimension><t:ImageWidth>4000</t:ImageWidth>'
    b"<xmp:Thumbnails><rdf:Alt><rdf:li>the old picture</rdf:li></rdf:Alt></xmp:Thumbnails>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)


def photo(format: str, **arguments: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format, **arguments)
    return file.getvalue()


def exif(orientation: int = 6) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "Maker"
    block.get_ifd(0x8769)[0xA002] = 4000
    return block.tobytes()


def png_with_tail(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with chunks between its pixels and its end."""
    whole = photo("PNG")
    end = whole.index(b"IEND") - 4
    tail = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return whole[:end] + tail + whole[end:]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF"])
def test_a_plain_photo_has_nothing(format: str) -> None:
    assert read(photo(format)) == NOTHING
    assert for_output(NOTHING, 10, 20) is NOTHING


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_from_every_container(format: str, orientation: int) -> None:
    found = read(photo(format, exif=exif(orientation)))
    assert found.orientation == orientation
    assert found.exif is not None
    assert found.exif[:2] in (b"II", b"MM")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_turns_as_pillow_does(orientation: int) -> None:
    with Image.open(io.BytesIO(photo("PNG", exif=exif(orientation)))) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(upright(PIXELS, orientation), expected)
    np.testing.assert_array_equal(upright(PIXELS[:, :, 0], orientation), expected[:, :, 0])


def test_tiff_and_avif_are_turned_once() -> None:
    """Pillow turns a TIFF while decoding, and tells an AVIF's own rotation as EXIF orientation."""
    tiff, avif = photo("TIFF", exif=exif(6)), photo("AVIF", exif=exif(6), quality=100, subsampling="4:4:4")
    for data, orientation in ((tiff, 1), (avif, 6)):
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            pixels = upright(np.asarray(image), read(data).orientation)
        assert pixels.shape == (8, 6, 3)
        assert read(data).orientation == orientation
        assert np.abs(pixels.astype(int) - upright(PIXELS, 6)).mean() < 12


def test_blocks_are_read_from_every_container() -> None:
    icc = b"a profile, unread"
    for format in ("JPEG", "WEBP", "AVIF"):
        found = read(photo(format, exif=exif(), xmp=XMP, icc_profile=icc if format != "AVIF" else None))
        assert found.xmp == XMP, format
        assert found.icc == (icc if format != "AVIF" else None)
        assert found.exif is not None
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    info.add_text("Author", "Ansel")
    found = read(photo("PNG", exif=exif(), pnginfo=info, dpi=(300, 300)))
    assert found.xmp == XMP
    assert found.texts == (("Author", "Ansel"),)
    assert found.dpi == pytest.approx((300, 300), abs=0.01)


def test_png_chunks_behind_the_pixels_are_read_without_decoding() -> None:
    damaged = bytearray(
        png_with_tail(
            (b"eXIf", exif(8)[6:]), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP), (b"tEXt", b"Title\0Half Dome")
        )
    )
    damaged[damaged.index(b"IDAT") + 6] ^= 0xFF  # whoever decodes this fails
    found = read(bytes(damaged))
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
    assert read(jpeg).iptc == iptc
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type iptc", f"\niptc\n {len(resource)}\n{resource.hex()}\n", zip=True)
    assert read(photo("PNG", pnginfo=info)).iptc == iptc
    assert read(photo("TIFF", tiffinfo={33723: iptc})).iptc == iptc
    assert read(photo("TIFF", tiffinfo={34377: other + resource})).iptc == iptc


def test_iptc_that_photoshop_stored_as_integers_is_read() -> None:
    iptc = b"\x1c\x02\x50\x00\x05Ansel\0\0"
    tiff = bytearray(photo("TIFF", tiffinfo={33723: iptc}))
    entry = tiff.index(struct.pack("<HHI", 33723, 7, len(iptc)))
    tiff[entry + 2 : entry + 8] = struct.pack("<HI", 4, len(iptc) // 4)
    assert read(bytes(tiff)).iptc == iptc


def test_a_comment_is_read() -> None:
    assert read(photo("JPEG", comment=b"on the way up")).comment == b"on the way up"


@pytest.mark.parametrize("data", [b"", b"not a photo", photo("JPEG")[:40], photo("PNG")[:20], photo("TIFF")[:9]])
def test_what_cannot_be_opened_has_a_note_and_no_error(data: bytes) -> None:
    found = read(data)
    assert found == Metadata(notes=found.notes)
    assert found.notes


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]), st.data())
def test_no_damage_raises(format: str, data: st.DataObject) -> None:
    whole = bytearray(SAMPLES[format])
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    found = read(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    assert for_output(found, 10, 20).orientation == 1


SAMPLES = {
    format: photo(format, exif=exif(), **({} if format in ("PNG", "TIFF") else {"xmp": XMP}))
    for format in ("JPEG", "PNG", "WEBP", "TIFF")
}


def test_the_output_is_upright_and_of_its_own_size() -> None:
    found = for_output(read(photo("JPEG", exif=exif(6), xmp=XMP)), 640, 853)
    assert found.orientation == 1
    assert found.exif is not None
    block = Image.Exif()
    block.load(found.exif)
    assert block[0x0112] == 1
    assert block[0x010F] == "Maker"
    assert block.get_ifd(0x8769)[0xA002] == 640
    assert found.xmp == corrected_xmp(XMP, 640, 853, srgb=True)


def test_an_unreadable_exif_block_is_dropped_with_a_note() -> None:
    found = for_output(Metadata(exif=b"absurd", xmp=XMP), 640, 853)
    assert found.exif is None
    assert found.xmp is not None
    assert "EXIF dropped" in found.notes[0]


def test_xmp_is_corrected_whatever_its_prefixes_and_form() -> None:
    after = corrected_xmp(XMP, 640, 853, srgb=True)
    assert b't:Orientation="1"' in after
    assert b'exif:PixelXDimension="640"' in after
    assert b"<exif:PixelYDimension>853</exif:PixelYDimension>" in after
    assert b"<t:ImageWidth>640</t:ImageWidth>" in after
    assert b'exif:ColorSpace="1"' in after
    assert b'photoshop:ICCProfile="sRGB IEC61966-2.1"' in after
    assert b"old picture" not in after
    assert b'xmp:Rating="5"' in after


def test_xmp_keeps_the_colour_space_where_the_profile_is_kept() -> None:
    after = corrected_xmp(XMP, 640, 853, srgb=False)
    assert b'exif:ColorSpace="65535"' in after
    assert b"Adobe RGB (1998)" in after


def test_extended_xmp_is_dropped_with_a_note() -> None:
    xmp = b'<rdf:Description xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="AB12" a="b"/>'
    found = for_output(Metadata(xmp=xmp), 1, 1)
    assert found.xmp == xmp.replace(b' xmpNote:HasExtendedXMP="AB12"', b"")
    assert "extended XMP" in found.notes[0]


def test_strip_leaves_the_profile_alone() -> None:
    found = Metadata(exif=b"e", xmp=b"x", iptc=b"i", icc=b"profile", dpi=(72, 72), comment=b"c", notes=("n",))
    assert stripped(found) == Metadata(icc=b"profile")
