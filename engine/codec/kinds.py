"""What a file is, told by its first bytes."""

from __future__ import annotations

from engine.codec.formats import format_of

HEAD_BYTES = 64
"""How many bytes from the start of a file `suffix_of_content` needs."""

_AT_START: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"GIF87a", ".gif"),
    (b"GIF89a", ".gif"),
    (b"BM", ".bmp"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", ".jp2"),
    (b"\xff\x4f\xff\x51", ".j2k"),
    (b"\xff\x0a", ".jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", ".jxl"),
    (b"8BPS", ".psd"),
    (b"FUJIFILMCCD-RAW", ".raf"),
    (b"IIRO", ".orf"),
    (b"IIRS", ".orf"),
    (b"MMOR", ".orf"),
    (b"IIU\0", ".rw2"),
    (b"FOVb", ".x3f"),
    (b"\0MRM", ".mrw"),
    (b"\0\0\x01\0", ".ico"),
)
"""Signatures of image formats, and the usual suffix of each."""

RAW_SUFFIXES = frozenset(format_of("RAW").suffixes)
"""Suffixes of camera raw files. Most are TIFF files by structure, so the name decides, not the first bytes."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_BRANDS = {
    b"avif": ".avif",
    b"avis": ".avif",
    b"crx ": ".cr3",
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), ".heic"),
}
"""Major brands of ISO base media files (ISO/IEC 14496-12) that hold still images."""


def suffix_of_content(head: bytes) -> str | None:
    """Return the usual suffix of the image format that `head` begins, such as `.jpg`; None for anything else.

    Camera raw files that are TIFF files by structure (NEF, ARW, DNG) cannot be told from a TIFF by `HEAD_BYTES` bytes;
    they count as `.tif` here.
    """
    if head[:4] in _TIFF:
        return ".cr2" if head[8:10] == b"CR" else ".tif"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    if head[:4] == b"RIFF":
        return ".webp" if head[8:12] == b"WEBP" else None
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace():
        return ".pnm"
    if head[:2] == b"BM" and head[6:10] != bytes(4):  # reserved fields of a bitmap's header
        return None
    return next((suffix for start, suffix in _AT_START if head.startswith(start)), None)
