"""Bounds on the work that a header may ask for, found by walking over parts of a file without reading them.

Libraries read all parts before the pixels, and count the frames of an animation by visiting each. A file of a few
megabytes can have millions of either.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from engine.errors import SkipImage

MAX_PARTS = 100_000
"""Parts that may precede the pixels; cameras write some dozens, a large ICC profile or XMP packet some thousands."""
MAX_FRAMES = 1000
"""Frames that are counted; a file with this many may have more."""


def require_bounded(data: bytes) -> None:
    """Raise `SkipImage` when more than `MAX_PARTS` parts precede the pixels of a JPEG, PNG or GIF."""
    for i, _ in enumerate(_parts_before_pixels(data)):
        if i >= MAX_PARTS:
            raise SkipImage(f"more than {MAX_PARTS:,} parts precede its pixels")


def count_frames(data: bytes, format: str) -> int | None:
    """Count the frames of a GIF or TIFF up to `MAX_FRAMES`; None for other formats."""
    if format == "GIF":
        frames = _gif_frames(data)
    elif format == "TIFF":
        frames = _tiff_frames(data)
    else:
        return None
    return max(1, sum(1 for _, _ in zip(frames, range(MAX_FRAMES), strict=False)))


def _parts_before_pixels(data: bytes) -> Iterator[None]:
    if data.startswith(b"\xff\xd8"):
        return _jpeg_segments(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_chunks(data)
    if data.startswith(b"GIF8"):
        return (None for is_image in _until_image(_gif_blocks(data)) if not is_image)
    return iter(())


def _jpeg_segments(data: bytes) -> Iterator[None]:
    """Yield once for each segment and each fill byte up to the start of scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xDA, 0xD9):
            return
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield None


def _png_chunks(data: bytes) -> Iterator[None]:
    """Yield once for each chunk up to the first one of pixels."""
    at = 8
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        yield None


def _until_image(blocks: Iterator[bool]) -> Iterator[bool]:
    for is_image in blocks:
        yield is_image
        if is_image:
            return


def _gif_blocks(data: bytes) -> Iterator[bool]:
    """Yield True for each image, and False for each sub-block of an extension."""
    if len(data) < 13:
        return
    at = 13 + _gif_palette_bytes(data[10])
    while at < len(data):
        kind = data[at]
        if kind == 0x21:  # extension: a label, then sub-blocks
            at += 2
        elif kind == 0x2C and at + 10 < len(data):  # image: a descriptor, its palette, the code size, sub-blocks
            yield True
            at += 11 + _gif_palette_bytes(data[at + 9])
        else:
            return
        while at < len(data) and data[at]:
            at += 1 + data[at]
            if kind == 0x21:
                yield False
        at += 1


def _gif_palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_frames(data: bytes) -> Iterator[None]:
    """Yield once for each image; ends early where too much else lies between them."""
    parts = 0
    for is_image in _gif_blocks(data):
        if is_image:
            yield None
        else:
            parts += 1
            if parts > MAX_PARTS:
                return


def _tiff_frames(data: bytes) -> Iterator[None]:
    """Yield once for each image file directory of a TIFF or BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    number, size = ("Q", 8) if big else ("I", 4)
    count, entry = ("Q", 20) if big else ("H", 12)
    at: int = 8 if big else 4
    seen: set[int] = set()
    while at + size <= len(data):
        (directory,) = struct.unpack_from(order + number, data, at)
        count_bytes = struct.calcsize(order + count)
        if directory == 0 or directory in seen or directory + count_bytes > len(data):
            return
        seen.add(directory)
        yield None
        (entries,) = struct.unpack_from(order + count, data, directory)
        at = directory + count_bytes + entries * entry
