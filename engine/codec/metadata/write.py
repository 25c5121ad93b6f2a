"""Write metadata into the output, in two steps that every format goes through.

    image.save(file, "PNG", **save_arguments(metadata, "PNG"))        what Pillow's encoder writes
    data, notes = into_encoded(data, metadata, "PNG")                 what it does not

Formats are Pillow's names. Metadata has been through `metadata.for_output`.
"""

from __future__ import annotations

import struct
from typing import Any

from PIL import PngImagePlugin

from engine.codec.formats import format_of
from engine.codec.metadata import exif as exif_block
from engine.codec.metadata.read import IPTC_IN_PNG, IPTC_RESOURCE, PHOTOSHOP_HEAD, XMP_HEAD, XMP_IN_PNG
from engine.codec.tiff import Value
from engine.records import NOTHING, Metadata

JPEG_SEGMENT_BYTES = 65533
NAMES = {"dpi": "resolution", "texts": "PNG texts"}
"""Words in remarks for kinds of metadata."""
_BYTE, _UNDEFINED = 1, 7


def save_arguments(metadata: Metadata, format: str) -> dict[str, Any]:
    """Return the arguments of `Image.save` that write metadata as Pillow's `format`.

    JPEG and TIFF need `into_encoded` afterwards: Pillow writes no IPTC into the first, and no EXIF into a
    compressed one of the second.
    """
    if format == "JPEG" or metadata == NOTHING:
        return {}
    blocks: dict[str, Any] = {"icc_profile": metadata.icc, "dpi": metadata.dpi}
    if format == "PNG":
        blocks["pnginfo"] = png_info(metadata)
    if format in ("PNG", "WEBP", "AVIF") and metadata.exif is not None:
        blocks["exif"] = exif_block.without_orientation(metadata.exif) if format == "AVIF" else metadata.exif
    if format in ("WEBP", "AVIF"):
        blocks["xmp"] = metadata.xmp
    return {name: block for name, block in blocks.items() if block is not None}


def into_encoded(data: bytes, metadata: Metadata, format: str) -> tuple[bytes, list[str]]:
    """Insert what `save_arguments` could not into an encoded image; return it with notes on what was left out."""
    if metadata == NOTHING:
        return data, []
    notes = left_out(metadata, format)
    if format == "JPEG":
        data, lost = into_jpeg(data, metadata)
        return data, notes + lost
    return into_tiff(data, metadata) if format == "TIFF" else data, notes


def left_out(metadata: Metadata, format: str) -> list[str]:
    """Return a note for each kind of metadata that the output format has no place for."""
    blocks: dict[str, object] = {
        "EXIF": metadata.exif,
        "XMP": metadata.xmp,
        "IPTC": metadata.iptc,
        "dpi": None if metadata.exif is not None else metadata.dpi,  # EXIF holds the resolution as well
        "comment": metadata.comment,
        "texts": metadata.texts,
    }
    holds = format_of(format).carries
    return [
        f"{NAMES.get(kind, kind)} dropped: {format} has no place for {'them' if kind == 'texts' else 'it'}"
        for kind, block in blocks.items()
        if block and kind not in holds
    ]


def into_jpeg(jpeg: bytes, metadata: Metadata) -> tuple[bytes, list[str]]:
    """Insert metadata into a JPEG that has none; return it with notes on what was too long for it.

    Segments follow the JFIF header in the usual order: EXIF, XMP, ICC, IPTC, comment.
    """
    notes: list[str] = []
    segments = [
        *segment(0xE1, b"Exif\x00\x00", metadata.exif, "EXIF", notes),
        *segment(0xE1, XMP_HEAD, metadata.xmp, "XMP", notes),
        *icc_segments(metadata.icc),
        *photoshop_segments(metadata.iptc),
        *segment(0xFE, b"", metadata.comment, "the comment", notes),
    ]
    header, rest = split_after_jfif(jpeg)
    if metadata.dpi is not None and len(header) > 2:
        across, down = (min(max(round(value), 1), 65535) for value in metadata.dpi)
        header = header[:13] + struct.pack(">BHH", 1, across, down) + header[18:]
    return b"".join([header, *segments, rest]), notes


def into_tiff(tiff: bytes, metadata: Metadata) -> bytes:
    """Append EXIF, XMP and IPTC to a TIFF with one image, and add them to its directory.

    Values are written as they are stored in the EXIF block, texts of any encoding included.
    """
    block = exif_block.open_block(tiff)
    entries, _ = exif_block.read_table(block, exif_block.first_table(block))
    tables = {"root": {}} if metadata.exif is None else exif_block.tables_of(metadata.exif)
    for tag, kind, content in (
        (exif_block.XMP, _BYTE, metadata.xmp),
        (exif_block.IPTC, _UNDEFINED, metadata.iptc),
    ):
        if content is not None:
            tables["root"][tag] = Value(kind, len(content), content, block.order)
    if not any(tables.values()):
        return tiff
    block.data += bytes(len(tiff) % 2)
    values_at = len(block.data)
    block.data += exif_block.built(tables, block.order, values_at)
    added, _ = exif_block.read_table(block, values_at)
    merged = {entry.tag: entry for entry in [*entries, *added]}
    block.data += bytes(len(block.data) % 2)
    table_at = len(block.data)
    block.data += bytes(6 + 12 * len(merged))
    exif_block.write_table(block, table_at, [merged[tag] for tag in sorted(merged)], 0)
    block.data[4:8] = block.pack("I", table_at)
    return bytes(block.data)


def png_info(metadata: Metadata) -> PngImagePlugin.PngInfo:
    """Return the text chunks of a PNG: XMP, IPTC and the texts of the source."""
    info = PngImagePlugin.PngInfo()
    if metadata.xmp is not None:
        info.add_itxt(XMP_IN_PNG, metadata.xmp.decode("utf-8", "replace"))
    if metadata.iptc is not None:
        block = photoshop_block(metadata.iptc)
        digits = block.hex()
        lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
        info.add_text(IPTC_IN_PNG, f"\niptc\n{len(block):8d}\n{lines}\n", zip=True)
    for keyword, text in metadata.texts:
        info.add_itxt(keyword, text) if not text.isascii() else info.add_text(keyword, text)
    return info


def photoshop_block(iptc: bytes) -> bytes:
    """Return IPTC records as the only Photoshop image resource."""
    return b"8BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)


def photoshop_segments(iptc: bytes | None) -> list[bytes]:
    """Return the APP13 segments of IPTC records; a long resource goes on in the next segment."""
    if iptc is None:
        return []
    block, room = photoshop_block(iptc), JPEG_SEGMENT_BYTES - len(PHOTOSHOP_HEAD)
    parts = [block[start : start + room] for start in range(0, len(block), room)]
    return [
        struct.pack(">BBH", 0xFF, 0xED, len(PHOTOSHOP_HEAD) + len(part) + 2) + PHOTOSHOP_HEAD + part for part in parts
    ]


def segment(marker: int, prefix: bytes, payload: bytes | None, name: str, notes: list[str]) -> list[bytes]:
    """Return the one JPEG segment that holds `payload`, none when there is nothing or it is too long."""
    if not payload:
        return []
    size = len(prefix) + len(payload)
    if size > JPEG_SEGMENT_BYTES:
        notes.append(f"{name} dropped: {size} bytes, a JPEG segment holds {JPEG_SEGMENT_BYTES}")
        return []
    return [struct.pack(">BBH", 0xFF, marker, size + 2) + prefix + payload]


def icc_segments(icc: bytes | None) -> list[bytes]:
    """Return the APP2 segments of a profile, which may be longer than one segment (ICC.1:2022, annex B.4)."""
    if icc is None:
        return []
    room = JPEG_SEGMENT_BYTES - 14
    parts = [icc[start : start + room] for start in range(0, len(icc), room)]
    return [
        struct.pack(">BBH", 0xFF, 0xE2, len(part) + 16) + b"ICC_PROFILE\x00" + bytes((number, len(parts))) + part
        for number, part in enumerate(parts, start=1)
    ]


def split_after_jfif(jpeg: bytes) -> tuple[bytes, bytes]:
    """Split a JPEG behind its JFIF header, or behind the start marker where it has none."""
    if jpeg[2:4] == b"\xff\xe0" and jpeg[6:11] == b"JFIF\x00":
        end = 4 + struct.unpack_from(">H", jpeg, 4)[0]
        return jpeg[:end], jpeg[end:]
    return jpeg[:2], jpeg[2:]
