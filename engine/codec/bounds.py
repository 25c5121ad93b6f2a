"""Bounds on the work that a header may ask for, found by walking over parts of a file without reading them.

Libraries read all parts before the pixels, and count the frames of an animation by visiting each. A file of a few
megabytes can have millions of either. Nor do width and height alone bound what a decoder does: it goes over all pixels
for each scan of a JPEG, sets up each tile of a JPEG 2000, decodes a whole tile of a TIFF for a corner of it, and finds
images of any size in an icon.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from engine.errors import SkipImage

MAX_PARTS = 100_000
"""Parts that may precede the pixels; cameras write some dozens, a large ICC profile or XMP packet some thousands."""
MAX_FRAMES = 1000
"""Frames that are counted; a file with this many may have more."""
MAX_SCANS = 100
"""Scans of a JPEG, thumbnails included; libjpeg's own script for progressive ones has ten. As in libtiff."""
MAX_ICON_SIDE = 1024
"""Pixels of a side of an image in an icon file; the format describes 256."""
MAX_TILES = 10_000
"""Tiles of a JPEG 2000, each of which takes some ten kilobytes."""
CODESTREAM = b"\xff\x4f\xff\x51"
"""Start of a JPEG 2000 codestream and of its image and tile size (SIZ)."""
_MARKER_OF_SCAN = b"\xff\xda"
_FRAMES_OF_MANY_SCANS = {0xC2, 0xC6, 0xCA, 0xCE}


def require_bounded(data: bytes) -> None:
    """Raise `SkipImage` when the parts of an image ask for far more work than its width and height announce."""
    for i, _ in enumerate(_parts_before_pixels(data)):
        if i >= MAX_PARTS:
            raise SkipImage(f"more than {MAX_PARTS:,} parts precede its pixels")
    if data.startswith(b"\xff\xd8"):
        require_few_scans(data)
    elif data.startswith(b"\x00\x00\x01\x00"):
        _require_small_icons(data)
    elif data[4:8] == b"jP  " or data.startswith(CODESTREAM):
        _require_few_tiles(data)


def require_few_scans(data: bytes) -> None:
    """Raise `SkipImage` when a JPEG has more than `MAX_SCANS` scans."""
    if not _is_one_scan(data) and data.count(_MARKER_OF_SCAN) > MAX_SCANS:
        raise SkipImage(f"more than {MAX_SCANS} scans in a JPEG")


def _is_one_scan(data: bytes) -> bool:
    """Return whether the first scan of a JPEG holds all components, so that what follows is not decoded."""
    at = 2
    components = 0
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES_OF_MANY_SCANS:
            return False
        if marker in (0xC0, 0xC1, 0xC9):
            components = data[at + 9]
        elif marker == 0xDA:
            return data[at + 4] == components
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    return False


def _require_small_icons(data: bytes) -> None:
    """Raise `SkipImage` for an icon file with an image that no icon has: Pillow decodes one to open the file."""
    for entry in range(min(int.from_bytes(data[4:6], "little"), MAX_PARTS)):
        at = int.from_bytes(data[6 + 16 * entry + 12 : 6 + 16 * entry + 16], "little")
        if data[at : at + 8] == b"\x89PNG\r\n\x1a\n":
            width, height = (int.from_bytes(data[at + i : at + i + 4]) for i in (16, 20))
        else:  # the header of a BMP, whose height counts the mask as well
            width, height = (int.from_bytes(data[at + i : at + i + 4], "little", signed=True) for i in (4, 8))
            height //= 2
        if max(abs(width), abs(height)) > MAX_ICON_SIDE:
            raise SkipImage(f"an image of {width}x{height} in an icon file, over {MAX_ICON_SIDE} pixels a side")


def _require_few_tiles(data: bytes) -> None:
    """Raise `SkipImage` for a JPEG 2000 whose image is cut into more than `MAX_TILES` tiles (SIZ; T.800, A.5.1)."""
    at = data.find(CODESTREAM)
    while 0 <= at <= len(data) - 40:
        right, bottom, _, _, width, height, left, top = struct.unpack_from(">8I", data, at + 8)
        tiles = -(-(right - left) // max(1, width)) * -(-(bottom - top) // max(1, height))
        if tiles > MAX_TILES:
            raise SkipImage(f"{tiles:,} tiles in a JPEG 2000, over {MAX_TILES:,}")
        at = data.find(CODESTREAM, at + 4)


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
