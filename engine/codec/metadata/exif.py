"""Correct an EXIF block for a translated photo, in place, so that nothing else in it moves.

Camera makers keep private offsets inside their MakerNote, counted from the start of the block. A block
that is parsed and written anew puts the MakerNote elsewhere and breaks them, so `corrected` never moves a
value: it rewrites the directory tables where they stand, and leaves every byte that it need not change.

The layout is that of a TIFF file (Exif 3.0, section 4.5; TIFF 6.0, section 2): a header of 8 bytes, then
directories, each a count, entries of 12 bytes and the offset of the next directory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

BYTES_PER_VALUE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
SHORT, LONG = 3, 4

ORIENTATION = 0x0112
WIDTH_TAGS = (0x0100, 0xA002)
HEIGHT_TAGS = (0x0101, 0xA003)
COLOUR_SPACE = 0xA001
INTEROP_INDEX = 0x0001
THUMBNAIL_OFFSET, THUMBNAIL_BYTES = 0x0201, 0x0202
EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005
CHILDREN = {"root": {EXIF_IFD: "exif", GPS_IFD: "gps"}, "exif": {INTEROP_IFD: "interop"}}

HOW_PIXELS_ARE_STORED = frozenset(
    [254, 255, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330, 338, 339, 347]
)
XMP, IPTC, PHOTOSHOP, ICC = 700, 33723, 34377, 34675
NOT_CARRIED = HOW_PIXELS_ARE_STORED | {THUMBNAIL_OFFSET, THUMBNAIL_BYTES, XMP, IPTC, PHOTOSHOP, ICC}
"""Tags of the first directory that are untrue of the new image, or that travel as blocks of their own."""
WORDS = frozenset([269, 270, 271, 272, 285, 305, 306, 315, 316, 33432, 18246, 18249, 40091, 40092, 40093, 40094, 40095])
RESOLUTION = frozenset([282, 283, 296])
DESCRIPTIVE = WORDS | RESOLUTION | {ORIENTATION, EXIF_IFD, GPS_IFD}
"""Tags of the first directory that say something of the photo; in a TIFF they stand among hundreds of others."""


class ExifError(ValueError):
    """The block, or one directory of it, cannot be read; the text says why."""


@dataclass(frozen=True)
class Entry:
    """One row of a directory: `cell` is the 4 bytes that hold the value, or its offset when it is longer."""

    tag: int
    kind: int
    count: int
    cell: bytes


@dataclass
class Block:
    """An EXIF block that is being corrected."""

    data: bytearray
    order: str
    """`<` or `>`, for `struct`."""
    tables: list[tuple[int, int]]
    """Half-open byte ranges of the header and of the directories read so far."""
    values: list[tuple[int, int]] = field(default_factory=list)
    """Half-open byte ranges of the values outside the directories."""
    notes: list[str] = field(default_factory=list)

    def unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        """Read integers at `offset`; raises `ExifError` past the end."""
        try:
            return struct.unpack_from(self.order + layout, self.data, offset)
        except struct.error:
            raise ExifError(f"offset {offset} lies outside the block of {len(self.data)} bytes") from None

    def pack(self, layout: str, *values: int) -> bytes:
        """Write integers in the block's byte order."""
        return struct.pack(self.order + layout, *values)


def orientation(exif: bytes) -> int:
    """Return how the photo is to be turned, 1 to 8 as in Exif 3.0; 1 where it is absent or makes no sense."""
    try:
        block = open_block(exif)
        entries, _ = read_table(block, first_table(block))
        value = next((as_integer(block, entry) for entry in entries if entry.tag == ORIENTATION), 1)
    except ExifError:
        return 1
    return value if value is not None and 1 <= value <= 8 else 1


def claims_adobe_rgb(exif: bytes) -> bool:
    """Tell whether a camera marked the photo as Adobe RGB without a profile (DCF 2.0: interop index R03)."""
    try:
        block = open_block(exif)
        entries = dict(walk(block, first_table(block), "root"))
    except ExifError:
        return False
    return any(e.tag == INTEROP_INDEX and e.cell[:3] == b"R03" for e in entries.get("interop", []))


def corrected(exif: bytes, width: int, height: int, *, srgb: bool) -> tuple[bytes, list[str]]:
    """Return the block as it is true of an upright image of `width` x `height` pixels, and notes on losses.

    Orientation becomes 1, pixel dimensions the new ones, the embedded thumbnail goes, and with `srgb` the
    colour space becomes sRGB. Entries that point outside the block, and directories that are cut off or come
    round in a circle, are dropped. Raises `ExifError` when not even the first directory can be read.
    """
    block = open_block(exif)
    thumbnail = find_thumbnail(block)
    correct_table(block, first_table(block), "root", width, height, srgb)
    if thumbnail is not None:
        erase(block, *thumbnail)
    return bytes(block.data), block.notes


def without_orientation(exif: bytes) -> bytes:
    """Return a `corrected` block without the orientation entry: AVIF keeps orientation outside EXIF."""
    block = open_block(exif)
    offset = first_table(block)
    entries, following = read_table(block, offset)
    write_table(block, offset, [entry for entry in entries if entry.tag != ORIENTATION], following)
    return bytes(block.data)


def raw_value(tiff: bytes, tag: int) -> bytes | None:
    """Return the bytes of a value in the first directory of a TIFF as they are stored, None where there is none."""
    try:
        block = open_block(tiff)
        entries, _ = read_table(block, first_table(block))
        entry = next(entry for entry in entries if entry.tag == tag)
        check_value(block, entry)
    except (ExifError, StopIteration):
        return None
    size = BYTES_PER_VALUE[entry.kind] * entry.count
    start = block_offset(block, entry)
    return entry.cell[:size] if size <= 4 else tiff[start : start + size]


def open_block(exif: bytes) -> Block:
    """Check the header and say the byte order."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8 or struct.unpack_from(order + "H", exif, 2)[0] != 42:
        raise ExifError("no TIFF header")
    return Block(bytearray(exif), order, tables=[(0, 8)])


def first_table(block: Block) -> int:
    """Return the offset of the first directory."""
    return block.unpack("I", 4)[0]


def read_table(block: Block, offset: int) -> tuple[list[Entry], int]:
    """Read the directory at `offset`: its entries in order, and the offset of the next one (0 for none)."""
    if offset < 8:
        raise ExifError(f"directory offset {offset} lies inside the header")
    (count,) = block.unpack("H", offset)
    end = offset + 2 + 12 * count
    if count == 0 or end > len(block.data):
        raise ExifError(f"directory of {count} entries at {offset} does not fit")
    rows = struct.iter_unpack(block.order + "HHI4s", block.data[offset + 2 : end])
    following = block.unpack("I", end)[0] if end + 4 <= len(block.data) else 0
    return [Entry(*row) for row in rows], following


def write_table(block: Block, offset: int, entries: list[Entry], following: int) -> None:
    """Write a directory over the old one at `offset`, which had at least as many entries."""
    rows = b"".join(block.pack("HHI", e.tag, e.kind, e.count) + e.cell for e in entries)
    table = block.pack("H", len(entries)) + rows + block.pack("I", following)
    end = min(offset + len(table), len(block.data))
    block.data[offset:end] = table[: end - offset]


def walk(block: Block, offset: int, name: str) -> Iterator[tuple[str, list[Entry]]]:
    """Yield name and entries of the directory at `offset` and of those below it, without broken ones."""
    entries, _ = read_table(block, offset)
    yield name, entries
    for entry in entries:
        child = CHILDREN.get(name, {}).get(entry.tag)
        if child is not None:
            try:
                yield from walk(block, block_offset(block, entry), child)
            except ExifError:
                continue


def correct_table(block: Block, offset: int, name: str, width: int, height: int, srgb: bool) -> None:
    """Correct the directory at `offset` and those below it."""
    entries, _ = read_table(block, offset)
    end = offset + 2 + 12 * len(entries)
    if any(offset < other_end and other < end for other, other_end in block.tables):
        raise ExifError(f"directory at {offset} overlaps another")
    block.tables.append((offset, end))
    kept = []
    for entry in entries:
        try:
            check_value(block, entry)
            child = CHILDREN.get(name, {}).get(entry.tag)
            if child is not None:
                correct_table(block, block_offset(block, entry), child, width, height, srgb)
        except ExifError as error:
            block.notes.append(f"EXIF entry 0x{entry.tag:04x} dropped: {error}")
            continue
        if name != "root" or entry.tag not in NOT_CARRIED:
            kept.append(correct_entry(block, entry, name, width, height, srgb))
    if not kept:
        raise ExifError("none of its entries can be read")
    write_table(block, offset, kept, 0)


def correct_entry(block: Block, entry: Entry, name: str, width: int, height: int, srgb: bool) -> Entry:
    """Return the entry as it is true of the new image."""
    if name == "root" and entry.tag == ORIENTATION:
        return replace(entry, kind=SHORT, count=1, cell=block.pack("HH", 1, 0))
    if name in ("root", "exif") and entry.tag in WIDTH_TAGS:
        return replace(entry, kind=LONG, count=1, cell=block.pack("I", width))
    if name in ("root", "exif") and entry.tag in HEIGHT_TAGS:
        return replace(entry, kind=LONG, count=1, cell=block.pack("I", height))
    if srgb and name == "exif" and entry.tag == COLOUR_SPACE:
        return replace(entry, kind=SHORT, count=1, cell=block.pack("HH", 1, 0))
    if srgb and name == "interop" and entry.tag == INTEROP_INDEX and entry.cell[:3] == b"R03":
        return replace(entry, cell=b"R98\x00")
    return entry


def check_value(block: Block, entry: Entry) -> None:
    """Raise `ExifError` unless the type is known and the value lies inside the block; note where it lies."""
    if entry.kind not in BYTES_PER_VALUE:
        raise ExifError(f"value type {entry.kind} is unknown")
    size = BYTES_PER_VALUE[entry.kind] * entry.count
    if size <= 4:
        return
    offset = struct.unpack(block.order + "I", entry.cell)[0]
    if offset < 8 or offset + size > len(block.data):
        raise ExifError(f"{size} bytes at {offset} lie outside the block of {len(block.data)} bytes")
    block.values.append((offset, offset + size))


def block_offset(block: Block, entry: Entry) -> int:
    """Return the offset that a pointer entry holds."""
    return int(struct.unpack(block.order + "I", entry.cell)[0])


def as_integer(block: Block, entry: Entry) -> int | None:
    """Return the value of an entry that holds one integer, None for any other."""
    layout = {1: "B", SHORT: "H", LONG: "I", 8: "h", 9: "i"}.get(entry.kind)
    if layout is None or entry.count != 1:
        return None
    return int(struct.unpack_from(block.order + layout, entry.cell)[0])


def find_thumbnail(block: Block) -> tuple[int, int] | None:
    """Return the half-open range of the thumbnail's bytes, None where there is none."""
    try:
        _, following = read_table(block, first_table(block))
        entries, _ = read_table(block, following)
    except ExifError:
        return None
    values = {entry.tag: as_integer(block, entry) for entry in entries}
    start, size = values.get(THUMBNAIL_OFFSET), values.get(THUMBNAIL_BYTES)
    if start is None or size is None or start < 8 or size <= 0 or start + size > len(block.data):
        return None
    return start, start + size


def erase(block: Block, start: int, end: int) -> None:
    """Remove the thumbnail's bytes if they end the block, else blank them; never touches what is kept."""
    kept = block.tables + block.values
    if any(kept_start < end and start < kept_end for kept_start, kept_end in kept):
        return
    is_last = not block.data[end:].strip(b"\0")
    if is_last and all(kept_end <= start for _, kept_end in kept):
        del block.data[start:]
    else:
        block.data[start:end] = bytes(end - start)
