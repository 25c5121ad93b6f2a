"""Read EXIF, XMP, IPTC and the colour profile of an image without decoding its pixels.

Pillow parses the containers. The functions below read what it leaves out: TIFF tags as they are stored, ImageMagick's
profiles in PNG texts, XMP in GIF, and the metadata boxes of JPEG 2000. What is not carried over is named in
`Metadata.notes`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image, PngImagePlugin

from engine.codec import boxes, deep, png, tiff
from engine.codec.metadata import exif as exif_block
from engine.codec.metadata.colours import unused_colours
from engine.codec.opening import open_image
from engine.codec.trailing import left_out_behind
from engine.records import NOTHING, Metadata

XMP_IN_PNG = "XML:com.adobe.xmp"
IPTC_IN_PNG = "Raw profile type iptc"
IPTC_RESOURCE = 0x0404
PHOTOSHOP_HEAD = b"Photoshop 3.0\x00"
XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\x00"
EXTENDED_XMP_HEAD = b"http://ns.adobe.com/xmp/extension/\x00"
ADOBE_HEAD, MPF_HEAD, ICC_HEAD, JFIF_HEADS = b"Adobe", b"MPF\x00", b"ICC_PROFILE\x00", (b"JFIF\x00", b"JFXX\x00")
EXIF_HEAD = b"Exif\x00"

JPEG_BLOCKS = {"exif", "xmp", "photoshop", "icc_profile", "dpi", "comment"}
"""What Pillow calls the parts of a JPEG header that hold metadata."""

_UUIDS_IN_JP2 = {
    bytes.fromhex("4a706754696666457869662d3e4a5032"): "exif",
    bytes.fromhex("be7acfcb97a942e89c71999491e3afac"): "xmp",
    bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"): "iptc",
    bytes.fromhex("b14bf8bd083d4b43a5ae8cd7d5a6ce03"): "GeoTIFF (GeoJP2)",
}
_PNG_KINDS = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP sBIT bKGD hIST pHYs sPLT tEXt zTXt iTXt eXIf acTL fcTL fdAT "
    b"iDOT cICP".split()
)
"""PNG chunks that need no remark here: pixels, colour, metadata that is carried, animation, and hints for decoders."""
_GEOTIFF = frozenset({33550, 33920, 33922, 34264, 34735, 34736, 34737, 42112, 42113})
_TIFF_SILENT = exif_block.HOW_PIXELS_ARE_STORED | frozenset(
    {255, 256, 257, 280, 281, 297, 301, 318, 319, 330, 332, 333, 334, 336, 340, 341, 513, 514, 529, 530, 531, 532}
    | {exif_block.XMP, exif_block.IPTC, exif_block.PHOTOSHOP, exif_block.ICC, 37724}
)
"""TIFF tags that need no remark: about stored pixels, layers and previews, and blocks that are read separately."""


def read_opened(image: Image.Image, data: bytes, *, turned_by_decoder: bool) -> Metadata:
    """Read the metadata of an image that Pillow has opened from `data` and not yet loaded.

    Set `turned_by_decoder` for decoders that apply the orientation themselves: the returned orientation is then 1.
    """
    info = image.info
    if image.format == "JPEG" and not info.keys() & JPEG_BLOCKS:
        notes = (*_left_out_of_jpeg(image, None), *left_out_behind(data, "JPEG"))
        return Metadata(notes=notes) if notes else NOTHING
    if image.format == "TIFF":
        return of_tiff(data, dpi=sound_dpi(info.get("dpi")), turned_by_decoder=turned_by_decoder)
    notes_: list[str] = []
    blocks = {"exif": strip_prefix(info.get("exif")), "xmp": as_bytes(info.get("xmp")), "iptc": None}
    texts: tuple[tuple[str, str], ...] = ()
    if image.format in ("JPEG", "MPO"):
        photoshop = photoshop_of_jpeg(image)
        blocks["iptc"] = iptc_in_photoshop(photoshop)
        notes_ += _left_out_of_jpeg(image, photoshop)
    elif isinstance(image, PngImagePlugin.PngImageFile):
        blocks = {name: block or _profile_in_text(image.info, name) for name, block in blocks.items()}
        texts = texts_of_png(image)
        notes_ += _left_out_of_png(data)
    elif image.format == "JPEG2000":
        in_boxes = dict(_blocks_of_jp2(data))
        blocks = {name: block or in_boxes.pop(name, None) for name, block in blocks.items()}
        blocks["exif"] = strip_prefix(blocks["exif"])
        notes_ += [f"left out: {name}" for name in in_boxes]
    elif image.format in ("AVIF", "HEIF", "JXL"):
        notes_ += boxes.left_out_of_boxes(data, image.format)
    elif image.format == "WEBP":
        notes_ += boxes.left_out_of_webp(data)
    elif image.format == "GIF":
        blocks["xmp"] = blocks["xmp"] or xmp_of_gif(data)
    notes_ += [*left_out_behind(data, image.format or ""), *unused_colours(image, data)]
    exif, icc = blocks["exif"], as_bytes(info.get("icc_profile"))
    return Metadata(
        orientation=1 if exif is None or turned_by_decoder else exif_block.orientation(exif),
        exif=exif,
        xmp=as_utf8(blocks["xmp"]),
        iptc=blocks["iptc"],
        icc=icc,
        adobe_rgb=icc is None and exif is not None and exif_block.claims_adobe_rgb(exif),
        dpi=sound_dpi(info.get("dpi")),
        comment=as_bytes(info.get("comment")) if image.format in ("JPEG", "MPO", "GIF") else None,
        texts=texts,
        size=None if blocks["xmp"] is None else image.size,
        notes=tuple(notes_),
    )


def of_tiff(data: bytes, *, dpi: tuple[float, float] | None = None, turned_by_decoder: bool = False) -> Metadata:
    """Read the metadata of a TIFF or BigTIFF from its first directory, values as they are stored."""
    tags = tiff.first_directory(data)

    def block(tag: int) -> bytes | None:
        return (tags[tag].data or None) if tag in tags else None

    exif = exif_block.from_tiff(data)
    icc = block(exif_block.ICC)
    photoshop = block(exif_block.PHOTOSHOP) or b""
    xmp = block(exif_block.XMP)
    sides = [tags[tag].integers()[0] for tag in (256, 257) if tag in tags and tags[tag].integers()]
    return Metadata(
        orientation=1 if exif is None or turned_by_decoder else exif_block.orientation(exif),
        exif=exif,
        xmp=as_utf8(xmp),
        iptc=block(exif_block.IPTC) or iptc_in_photoshop(photoshop),
        icc=icc,
        adobe_rgb=icc is None and exif is not None and exif_block.claims_adobe_rgb(exif),
        dpi=dpi,
        size=(sides[0], sides[1]) if xmp is not None and len(sides) == 2 else None,
        notes=tuple(_left_out_of_tiff(tags)),
    )


def of_raw(data: bytes) -> Metadata:
    """Read EXIF and XMP of a RAW photo: from its TIFF directories, or from the JPEG that the camera put into it."""
    if tiff.is_tiff(data):
        found = of_tiff(data, turned_by_decoder=True)
        if found.exif is not None:
            return Metadata(exif=found.exif, xmp=found.xmp, iptc=found.iptc, size=found.size)
    thumbnail = deep.raw_thumbnail(data)
    if thumbnail is None:
        return Metadata(notes=("EXIF of this kind of RAW photo cannot be read",))
    with open_image(thumbnail) as image:
        exif = strip_prefix(image.info.get("exif"))
    return Metadata(exif=exif)


# Containers.


def photoshop_of_jpeg(image: Image.Image) -> bytes:
    """Return the Photoshop image resources of a JPEG; they may be spread over several APP13 segments."""
    return b"".join(
        body[len(PHOTOSHOP_HEAD) :] for name, body in _applications(image) if name == "APP13" and _is_photoshop(body)
    )


def texts_of_png(image: PngImagePlugin.PngImageFile) -> tuple[tuple[str, str], ...]:
    """Return the text chunks that are not containers of XMP, EXIF or IPTC."""
    return tuple(
        (keyword, str(text))
        for keyword, text in image.info.items()  # `image.text` would decode the pixels
        if isinstance(keyword, str) and isinstance(text, str)
        if keyword != XMP_IN_PNG and not _is_profile(keyword)
    )


def iptc_in_photoshop(block: bytes) -> bytes | None:
    """Return the IPTC records among Photoshop image resources."""
    return b"".join(content for code, content in resources(block) if code == IPTC_RESOURCE) or None


def resources(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each Photoshop image resource."""
    start = 0
    while block[start : start + 4] == b"8BIM" and start + 12 <= len(block):
        (code,) = struct.unpack_from(">H", block, start + 4)
        name_bytes = (block[start + 6] + 2) // 2 * 2
        size_at = start + 6 + name_bytes
        if size_at + 4 > len(block):
            return
        (size,) = struct.unpack_from(">I", block, size_at)
        yield code, block[size_at + 4 : size_at + 4 + size]
        start = size_at + 4 + (size + 1) // 2 * 2


def xmp_of_gif(data: bytes) -> bytes | None:
    """Return the XMP packet of a GIF, which ends where a trailer of falling bytes starts (XMP part 3, 1.1.2)."""
    start = data.find(b"\x21\xff\x0bXMP DataXMP")
    end = data.find(b"\x01\xff\xfe\xfd", start)
    return data[start + 14 : end] if 0 <= start < end else None


def _profile_in_text(info: Mapping[Any, Any], wanted: str) -> bytes | None:
    """Return EXIF, XMP or IPTC that ImageMagick, or a program of Apple's, stored as hexadecimal digits in a text."""
    for keyword, text in info.items():
        if not isinstance(keyword, str) or not isinstance(text, str) or not _is_profile(keyword):
            continue
        block = _from_hexadecimal(text)
        if block is None:
            continue
        if block.startswith(b"8BIM"):
            kind, block = "iptc", iptc_in_photoshop(block) or b""
        elif block.startswith(XMP_HEAD):
            kind, block = "xmp", block[len(XMP_HEAD) :]
        elif block.startswith((EXIF_HEAD, b"II*\x00", b"MM\x00*")):
            kind, block = "exif", strip_prefix(block) or b""
        else:
            kind = "iptc" if "iptc" in keyword.lower() else "xmp" if keyword.endswith("xmp") else ""
        if kind == wanted and block:
            return block
    return None


def _is_profile(keyword: str) -> bool:
    return keyword.startswith("Raw profile type") or keyword == "IPTC profile"


def _from_hexadecimal(text: str) -> bytes | None:
    """Decode ImageMagick's convention: a name, the number of bytes, then their hexadecimal digits."""
    words = text.split()
    try:
        first = next(i for i, word in enumerate(words) if word.isdecimal())
        block = bytes.fromhex("".join(words[first + 1 :]))
        return block[: int(words[first])] or None
    except (ValueError, StopIteration):
        return None


def _blocks_of_jp2(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield kind and content of the metadata boxes of a JP2 file (ISO/IEC 15444-1, annex I)."""
    at = 0
    while at + 8 <= len(data) and data[:4] == b"\x00\x00\x00\x0c":
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= len(data):
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        size = size or len(data) - at
        if size < head:
            return
        body = data[at + head : at + size]
        if kind == b"uuid" and body[:16] in _UUIDS_IN_JP2:
            yield _UUIDS_IN_JP2[body[:16]], body[16:]
        at += size


# What is left out.


def _left_out_of_jpeg(image: Image.Image, photoshop: bytes | None) -> Iterator[str]:
    names = []
    has_profile = False
    for name, body in _applications(image):
        if body.startswith((EXIF_HEAD, XMP_HEAD, EXTENDED_XMP_HEAD, ADOBE_HEAD, *JFIF_HEADS)) or _is_photoshop(body):
            continue  # EXIF and XMP are carried over, Adobe's and JFIF's are about how pixels are stored
        if body.startswith(ICC_HEAD):
            has_profile = True
        elif not (body.startswith(MPF_HEAD) and image.format == "MPO"):
            names.append(f"{name} {_label(body)}".strip())
    if names:
        yield f"left out: {', '.join(dict.fromkeys(names))}"
    if image.format == "MPO":
        yield "left out: the further images of the file (previews or other views)"
    if has_profile and not image.info.get("icc_profile"):
        yield "the colour profile is broken; the photo is taken as sRGB"
    others = [code for code, content in resources(photoshop or b"") if code != IPTC_RESOURCE]
    if others:
        yield "left out: Photoshop's settings besides IPTC"


def _left_out_of_png(data: bytes) -> Iterator[str]:
    kinds = [kind for kind, _, _ in png.chunks(data)]
    names = dict.fromkeys(kind.decode("latin-1") for kind in kinds if kind not in _PNG_KINDS)
    if names:
        yield f"left out: PNG chunks {', '.join(names)}"


def _left_out_of_tiff(tags: tiff.Directory) -> Iterator[str]:
    if tags.keys() & _GEOTIFF:
        yield "left out: GeoTIFF tags"
    known = exif_block.DESCRIPTIVE | _TIFF_SILENT | _GEOTIFF | {exif_block.EXIF_IFD, exif_block.GPS_IFD}
    extra = tags[tiff.EXTRA_SAMPLES].integers() if tiff.EXTRA_SAMPLES in tags else ()
    further = sum(kind not in tiff.ALPHA for kind in extra)
    if further:
        yield f"left out: {further} further channel{'s' if further > 1 else ''} of the TIFF"
    others = sorted(tags.keys() - known)
    if others:
        yield f"left out: TIFF tags {', '.join(map(str, others))}"


def _applications(image: Image.Image) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = getattr(image, "applist", [])
    return [(name, body) for name, body in found if name != "COM"]


def _is_photoshop(body: bytes) -> bool:
    return body.startswith(PHOTOSHOP_HEAD)


def _label(body: bytes) -> str:
    """Return the name that a segment starts with, where it is readable."""
    match = re.match(rb"[ -~]{2,24}", body)
    return "" if match is None else match[0].decode("ascii").strip()


# Values.


def strip_prefix(exif: Any) -> bytes | None:
    """Return an EXIF block without the marker that JPEG, and some other files, put before it."""
    block = as_bytes(exif)
    while block is not None and block.startswith(b"Exif\x00\x00"):
        block = block[6:]
    return block or None


def as_bytes(value: Any) -> bytes | None:
    """Return bytes for what Pillow holds as bytes or text, None for nothing and anything else."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) and value else None


def as_utf8(xmp: bytes | None) -> bytes | None:
    """Return an XMP packet in UTF-8; packets in UTF-16 are allowed and start with a byte order mark."""
    if xmp is not None and xmp.startswith((b"\xff\xfe", b"\xfe\xff")):
        return xmp.decode("utf-16", "replace").encode()
    return xmp


def sound_dpi(dpi: Any) -> tuple[float, float] | None:
    """Return a resolution that can be written again, None for the absent (a TIFF's 1) and the absurd."""
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return (across, down) if 1 < across <= 65535 and 1 < down <= 65535 else None
