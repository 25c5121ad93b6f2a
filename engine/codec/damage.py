"""The error for an image whose data contradict themselves, and the check of data compressed by deflate."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from engine.errors import SkipImage

_PART_BYTES = 1 << 18


class Damaged(SkipImage):
    """The data of an image contradict themselves; `--allow-damaged` translates it with a remark instead."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"damaged: {reason} (--allow-damaged translates it all the same)")
        self.reason = reason


def require_intact_deflate(compressed: bytes, most_bytes: int) -> int:
    """Decompress a zlib stream (RFC 1950) in small parts that are dropped, and return its size.

    Raises:
        ValueError: It is damaged, has no end, or has more than `most_bytes`.
    """
    stream = zlib.decompressobj()
    num_bytes = 0
    try:
        for part in _decompressed(stream, memoryview(compressed)):
            num_bytes += len(part)
            if num_bytes > most_bytes:
                raise ValueError("more pixels than its header announces")
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not stream.eof:
        raise ValueError("incomplete or truncated stream")
    return num_bytes


def _decompressed(stream: Any, compressed: memoryview) -> Iterator[bytes]:
    for start in range(0, len(compressed), _PART_BYTES):
        given: bytes | memoryview = compressed[start : start + _PART_BYTES]
        while given and not stream.eof:
            yield stream.decompress(given, _PART_BYTES)
            given = stream.unconsumed_tail
    while not stream.eof and (part := stream.decompress(b"", _PART_BYTES)):
        yield part
