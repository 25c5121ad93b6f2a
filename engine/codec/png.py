"""Chunks of a PNG: bring texts to the front, leave out what Pillow stumbles over, and check the pixels' checksums.

W3C, "Portable Network Graphics (PNG) Specification (Third Edition)", sections 5 and 11.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from PIL.PngImagePlugin import MAX_TEXT_CHUNK, MAX_TEXT_MEMORY

from engine.codec.damage import Damaged, require_intact_deflate
from engine.errors import SkipImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXTS = frozenset({b"eXIf", b"iTXt", b"zTXt", b"tEXt", b"tIME"})
_COMPRESSED = {b"zTXt", b"iTXt", b"iCCP"}
_ANCILLARY = 0x20
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_NO_END = "odd but undamaged PNG: it ends without the chunk that marks its end"
_EMPTY_PIXELS = b"\x00\x00\x00\x00IDAT\x35\xaf\x06\x1e"


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each whole chunk up to the last; a cut chunk at the end is left out."""
    start = len(SIGNATURE)
    kind = b""
    while start + 12 <= len(data) and kind != b"IEND":
        size, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + size
        if end > len(data):
            return
        yield kind, start, end
        start = end


def end_of_image(data: bytes) -> int | None:
    """Return where the last chunk of a PNG ends; None where it is missing."""
    return next((end for kind, _, end in chunks(data) if kind == b"IEND"), None)


def without_bad_chunks(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a PNG without the ancillary chunks that would make Pillow refuse it, and remarks on them.

    These are chunks with a wrong checksum, and texts of more than Pillow's limit (1 MiB decompressed). Other data, and
    a PNG without such chunks, come back as they are.

    Raises:
        SkipImage: All chunks together have more than Pillow's limit for texts (64 MiB decompressed).
    """
    if not data.startswith(SIGNATURE):
        return data, ()
    bad: list[tuple[int, int]] = []
    notes: list[str] = []
    left = MAX_TEXT_MEMORY
    for kind, start, end in chunks(data):
        if not kind[0] & _ANCILLARY:
            continue
        num_bytes = _decompressed_bytes(kind, data[start + 8 : end - 4]) if kind in _COMPRESSED else 0
        left -= num_bytes
        if left < 0:
            raise SkipImage(f"texts and profiles of more than {MAX_TEXT_MEMORY:,} bytes in a PNG")
        name = kind.decode("latin-1")
        if not _checksum_fits(data, start, end):
            notes.append(f"PNG chunk {name} dropped: its checksum is wrong")
        elif kind in TEXTS and num_bytes > MAX_TEXT_CHUNK:
            notes.append(f"PNG text {_keyword(data[start + 8 : end - 4])} dropped: longer than {MAX_TEXT_CHUNK} bytes")
        else:
            continue
        bad.append((start, end))
    if not bad:
        return data, ()
    parts, at = [], 0
    for start, end in bad:
        parts.append(data[at:start])
        at = end
    return b"".join([*parts, data[at:]]), tuple(notes)


def with_text_first(data: bytes) -> bytes:
    """Return a PNG without its pixels where texts follow them, so that Pillow sees these; other data as it is."""
    if not data.startswith(SIGNATURE):
        return data
    found = list(chunks(data))
    kinds = [kind for kind, _, _ in found]
    behind_pixels = kinds[kinds.index(b"IDAT") :] if b"IDAT" in kinds else []
    if not TEXTS & set(behind_pixels):
        return data
    kept = [data[start:end] for kind, start, end in found if kind not in (b"IDAT", b"IEND")]
    return b"".join([data[: len(SIGNATURE)], *kept, _EMPTY_PIXELS])


def check(data: bytes) -> tuple[str, ...]:
    """Check the checksums of the pixels.

    Returns:
        Remarks where a chunk's checksum is wrong but the one over all pixels (zlib's Adler-32) is right, and where the
        chunk that ends a PNG is missing.

    Raises:
        Damaged: Both are wrong.
    """
    pixels = [(start, end) for kind, start, end in chunks(data) if kind == b"IDAT"]
    if all(_checksum_fits(data, start, end) for start, end in pixels):
        return () if end_of_image(data) is not None else (_NO_END,)
    try:
        require_intact_deflate(b"".join(data[start + 8 : end - 4] for start, end in pixels), _most_bytes(data))
    except ValueError as error:
        raise Damaged(f"wrong PNG checksum, {error}") from None
    return ("odd but undamaged PNG: the checksum of a chunk is wrong, that of the pixels is right",)


def with_metadata_of(data: bytes, other: bytes) -> bytes:
    """Return a PNG with the ancillary chunks of another PNG in place of its own."""
    head = len(SIGNATURE) + 25
    taken = [other[start:end] for kind, start, end in chunks(other) if kind[0] & _ANCILLARY]
    kept = [data[start:end] for kind, start, end in chunks(data) if not kind[0] & _ANCILLARY]
    return b"".join([data[:head], *taken, *kept[1:]])


def bits(data: bytes) -> int:
    """Return the bits per sample in the header of a PNG."""
    return data[24] if len(data) > 24 else 8


def _most_bytes(data: bytes) -> int:
    """Return an upper limit of the bytes of all rows with their filters, interlaced or not, by the header."""
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    row = width * bits * _CHANNELS.get(colour, 4) // 8 + 2
    return 2 * int(row) * int(height) + 64  # interlacing adds less than a row for each row


def _checksum_fits(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])


def _decompressed_bytes(kind: bytes, body: bytes) -> int:
    """Return the bytes of a compressed text or profile, as far as one more than Pillow's limit; 0 for others."""
    after_keyword = body.find(b"\x00") + 1
    if kind != b"iTXt":
        compressed = body[after_keyword + 1 :]
    else:
        flag = body[after_keyword : after_keyword + 1]
        if flag != b"\x01":
            return 0
        at = after_keyword + 2
        for _ in range(2):  # language tag, translated keyword
            at = body.find(b"\x00", at) + 1
        compressed = body[at:]
    try:
        return len(zlib.decompressobj().decompress(compressed, MAX_TEXT_CHUNK + 1))
    except zlib.error:
        return 0


def _keyword(body: bytes) -> str:
    return body[: max(body.find(b"\x00"), 0)].decode("latin-1")
