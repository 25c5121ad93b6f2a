"""Write metadata into the output, in two steps that every format goes through.

    image.save(file, "PNG", **save_arguments(metadata, "PNG"))        what Pillow's encoder writes
    data, notes = into_encoded(data, metadata, "PNG")                 what it does not

Formats are Pillow's names. Metadata has been through `metadata.for_output`.
"""

from __future__ import annotations

import struct
from typing import Any

from PIL import Image, PngImagePlugin

from engine.codec.metadata import exif as exif_block
from engine.codec.metadata.read import IPTC_IN_PNG, IPTC_RESOURCE, XMP_IN_PNG
from engine.records import NOTHING, Metadata

JPEG_SEGMENT_BYTES = 65533
XMP_IN_JPEG = b"http://ns.adobe.com/xap/1.0/\x00"
HOLDS_IPTC = frozenset({"JPEG", "PNG", "TIFF"})
HOLDS_EXIF = frozenset({"JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"})


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
    if format in ("PNG", "WEBP", "AVIF", "HEIF") and metadata.exif is not None:
        blocks["exif"] = exif_block.without_orientation(metadata.exif) if format == "AVIF" else metadata.exif
    if format in ("WEBP", "AVIF", "HEIF"):
        blocks["xmp"] = metadata.xmp
    return {name: block for name, block in blocks.items() if block is not None}


def into_encoded(data: bytes, metadata: Metadata, format: str) -> tuple[bytes, list[str]]:
    """Insert what `save_arguments` could not into an encoded image; say what the format has no room for."""
    if metadata == NOTHING:
        return data, []
    if format == "JPEG":
        return into_jpeg(data, metadata)
    if format == "TIFF":
        return into_tiff(data, metadata)
    return data, left_out(metadata, format)


def left_out(metadata: Metadata, format: str) -> list[str]:
    """Say which blocks the output format has no place for, one sentence each."""
    lost = []
    if format not in HOLDS_EXIF and (metadata.exif is not None or metadata.xmp is not None):
        lost.append(f"EXIF and XMP dropped: {format} has no place for them")
    if format not in HOLDS_IPTC and metadata.iptc is not None:
        lost.append(f"IPTC dropped: {format} has no place for it")
    return lost


def into_jpeg(jpeg: bytes, metadata: Metadata) -> tuple[bytes, list[str]]:
    """Insert metadata into a JPEG that has none, and say what was too long for it.

    Segments follow the JFIF header in the usual order: EXIF, XMP, ICC, IPTC, comment.
    """
    notes: list[str] = []
    segments = [
        *segment(0xE1, b"Exif\x00\x00", metadata.exif, "EXIF", notes),
        *segment(0xE1, XMP_IN_JPEG, metadata.xmp, "XMP", notes),
        *icc_segments(metadata.icc),
        *segment(0xED, b"", photoshop_block(metadata.iptc), "IPTC", notes),
        *segment(0xFE, b"", metadata.comment, "the comment", notes),
    ]
    header, rest = split_after_jfif(jpeg)
    if metadata.dpi is not None and len(header) > 2:
        across, down = (min(max(round(value), 1), 65535) for value in metadata.dpi)
        header = header[:13] + struct.pack(">BHH", 1, across, down) + header[18:]
    return b"".join([header, *segments, rest]), notes


def into_tiff(tiff: bytes, metadata: Metadata) -> tuple[bytes, list[str]]:
    """Append EXIF, XMP and IPTC to a TIFF with one image, and make its directory name them."""
    block = exif_block.open_block(tiff)
    entries, _ = exif_block.read_table(block, exif_block.first_table(block))
    values_at = len(tiff) + len(tiff) % 2
    try:
        values = tiff_values(metadata, block.order, values_at)
    except Exception as error:  # noqa: BLE001  # Pillow raises whatever a damaged tag provokes
        return tiff, [f"EXIF, XMP and IPTC dropped: {error}"]
    block.data += bytes(values_at - len(tiff)) + values
    added = exif_block.read_table(block, values_at)[0] if values else []
    merged = {entry.tag: entry for entry in [*entries, *added]}
    table_at = len(block.data) + len(block.data) % 2
    block.data += bytes(table_at - len(block.data) + 6 + 12 * len(merged))
    exif_block.write_table(block, table_at, [merged[tag] for tag in sorted(merged)], 0)
    block.data[4:8] = block.pack("I", table_at)
    return bytes(block.data), []


def tiff_values(metadata: Metadata, order: str, offset: int) -> bytes:
    """Return a directory and its values as they stand at `offset` of a TIFF, in its byte order."""
    tags = Image.Exif()
    if metadata.exif is not None:
        tags.load(metadata.exif)
        for tag in set(tags) - exif_block.DESCRIPTIVE:
            del tags[tag]
    tags.endian = order
    for tag, value in ((exif_block.XMP, metadata.xmp), (exif_block.IPTC, metadata.iptc)):
        if value is not None:
            tags[tag] = value
    return tags.tobytes(offset)[len(b"Exif\x00\x00") + 8 :] if len(tags) else b""


def png_info(metadata: Metadata) -> PngImagePlugin.PngInfo:
    """Return the text chunks of a PNG: XMP, IPTC and the texts of the source."""
    info = PngImagePlugin.PngInfo()
    if metadata.xmp is not None:
        info.add_itxt(XMP_IN_PNG, metadata.xmp.decode("utf-8", "replace"))
    if metadata.iptc is not None:
        block = photoshop_block(metadata.iptc)[len(b"Photoshop 3.0\x00") :]
        digits = block.hex()
        lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
        info.add_text(IPTC_IN_PNG, f"\niptc\n{len(block):8d}\n{lines}\n", zip=True)
    for keyword, text in metadata.texts:
        info.add_itxt(keyword, text) if not text.isascii() else info.add_text(keyword, text)
    return info


def photoshop_block(iptc: bytes | None) -> bytes:
    """Wrap IPTC records as the one image resource of a Photoshop block; empty for None."""
    if iptc is None:
        return b""
    padding = b"\x00" * (len(iptc) % 2)
    return b"Photoshop 3.0\x008BIM" + struct.pack(">HHI", IPTC_RESOURCE, 0, len(iptc)) + iptc + padding


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
