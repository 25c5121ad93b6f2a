"""Bytes behind the end of an image, such as the video of a motion photo: named, for results have no place for them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping

from engine.codec import jpeg, png

_FILL = b"\x00\xff \r\n"
"""Bytes that programs pad files with."""
_KINDS = ((b"ftyp", "a video"), (b"\xff\xd8\xff", "another JPEG"), (b"PK\x03\x04", "a ZIP archive"))
_HEAD_BYTES = 65_536
_FEWEST_BYTES = 8
"""Fewer bytes hold nothing; some programs leave a checksum or a stray marker."""


def left_out_behind(data: bytes, format: str) -> Iterator[str]:
    """Yield a remark on what follows the end of a JPEG, PNG or WebP; padding and a missing end need none."""
    end = _ENDS[format](data) if format in _ENDS else None
    if end is None or end >= len(data):
        return
    behind = len(data[end:].rstrip(_FILL))
    if behind >= _FEWEST_BYTES:
        head = data[end : end + _HEAD_BYTES]
        kind = next((f" ({name})" for signature, name in _KINDS if signature in head), "")
        yield f"left out: {behind:,} bytes behind the end of the image{kind}"


def _end_of_webp(data: bytes) -> int:
    (size,) = struct.unpack_from("<I", data, 4)
    return int(size) + 8


_ENDS: Mapping[str, Callable[[bytes], int | None]] = {
    "JPEG": jpeg.end_of_image,
    "PNG": png.end_of_image,
    "WEBP": _end_of_webp,
}
