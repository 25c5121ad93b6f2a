"""Correct an EXIF block for a translated photo, in place, so that nothing else in it moves.

Camera makers keep private offsets inside their MakerNote, counted from the start of the block. A block
that is parsed and written anew puts the MakerNote elsewhere and breaks them, so `corrected` never moves a
value: it rewrites the directory tables where they stand, and leaves every byte that it need not change.

The layout is that of a TIFF file (Exif 3.0, section 4.5; TIFF 6.0, section 2): a header of 8 bytes, then
directories, each a count, entries of 12 bytes and the offset of the next directory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from engine.codec import tiff
from engine.codec.tiff import BYTES_PER_VALUE, Value

BYTES_PER_NUMBER = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4}
"""Of each type, the size of the numbers that follow the byte order; 1 for any other type."""
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
    """Return whether a camera marked the photo as Adobe RGB without a profile (DCF 2.0: interop index R03)."""
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
    offset = first_table(block)
    entries, following = read_table(block, offset)
    end = offset + 2 + 12 * len(entries)
    correct_table(block, offset, "root", width, height, srgb)
    if not is_taken(block, end, end + 4):
        thumbnail = find_thumbnail(block, following)
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


def from_tiff(data: bytes) -> bytes | None:
    """Make an EXIF block of the tags of a TIFF that describe the photo; None where there are none.

    Values are copied as they are stored. A MakerNote moves, so that offsets inside it may not fit any more.
    """
    tables = tables_of(data)
    if not tables["root"] and not any(tables[name] for name in ("exif", "gps")):
        return None
    order = next((value.order for table in tables.values() for value in table.values()), "<")
    head = {"<": b"II*\x00\x08\x00\x00\x00", ">": b"MM\x00*\x00\x00\x00\x08"}[order]
    return head + built(tables, order, 8)


def tables_of(data: bytes) -> dict[str, dict[int, Value]]:
    """Return the directories of a TIFF, or of an EXIF block, that describe the photo: root, exif, interop and gps."""
    root = tiff.first_directory(data)

    def below(table: tiff.Directory, tag: int) -> dict[int, Value]:
        offsets = table[tag].integers() if tag in table else ()
        return dict(tiff.directory_at(data, offsets[0])) if offsets else {}

    exif = below(root, EXIF_IFD)
    return {
        "root": {tag: value for tag, value in root.items() if tag in DESCRIPTIVE},
        "exif": exif,
        "interop": below(exif, INTEROP_IFD),
        "gps": below(root, GPS_IFD),
    }


def built(tables: Mapping[str, Mapping[int, Value]], order: str, offset: int) -> bytes:
    """Return directories and their values as they stand at `offset` of a file in byte order `order`.

    `tables` has a root, and may have exif, interop and gps; pointers between them are made here.
    """
    pointers = {tag for children in CHILDREN.values() for tag in children}
    plain = {
        name: {tag: value for tag, value in table.items() if tag not in pointers and value.kind in BYTES_PER_VALUE}
        for name, table in tables.items()
    }

    def one(name: str, at: int) -> bytes:
        table: dict[int, Value] = dict(plain.get(name, {}))
        below = [(tag, child) for tag, child in CHILDREN.get(name, {}).items() if has(child)]
        for tag, _ in below:
            table[tag] = Value(LONG, 1, bytes(4), order)
        values_at = at + 2 + 12 * len(table) + 4
        values, rows = b"", {}
        for tag, value in sorted(table.items()):
            stored = in_order(value, order)
            cell = stored.ljust(4, b"\x00") if len(stored) <= 4 else struct.pack(order + "I", values_at + len(values))
            rows[tag] = struct.pack(order + "HHI", tag, value.kind, value.count) + cell
            values += b"" if len(stored) <= 4 else stored + bytes(len(stored) % 2)
        for tag, child in below:
            child_at = values_at + len(values)
            rows[tag] = rows[tag][:8] + struct.pack(order + "I", child_at)
            values += one(child, child_at)
        return struct.pack(order + "H", len(rows)) + b"".join(rows.values()) + bytes(4) + values

    def has(name: str) -> bool:
        return bool(plain.get(name)) or any(has(child) for child in CHILDREN.get(name, {}).values())

    return one("root", offset)


def in_order(value: Value, order: str) -> bytes:
    """Return the bytes of a value in byte order `order`."""
    unit = BYTES_PER_NUMBER.get(value.kind, 1)
    if value.order == order or unit == 1:
        return value.data
    return np.frombuffer(value.data, f"u{unit}").byteswap().tobytes()


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


def write_table(block: Block, offset: int, entries: list[Entry], following: int | None) -> None:
    """Write a directory over the old one at `offset`, which had at least as many entries.

    `following` is the offset of the next directory. None leaves that field alone: some programs write none, and the
    first value stands in its place.
    """
    rows = b"".join(block.pack("HHI", e.tag, e.kind, e.count) + e.cell for e in entries)
    field = b"" if following is None else block.pack("I", following)
    table = block.pack("H", len(entries)) + rows + field
    end = min(offset + len(table), len(block.data))
    block.data[offset:end] = table[: end - offset]


def is_taken(block: Block, start: int, end: int) -> bool:
    """Return whether a value or another directory that was read lies in these bytes."""
    return any(taken_start < end and start < taken_end for taken_start, taken_end in block.tables + block.values)


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
    if len(kept) < len(entries) or (name == "root" and not is_taken(block, end, end + 4)):
        write_table(block, offset, kept, 0)
    else:
        write_table(block, offset, kept, None)


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


def find_thumbnail(block: Block, offset: int) -> tuple[int, int] | None:
    """Return the half-open range of the bytes of the thumbnail that the directory at `offset` names, if any."""
    try:
        entries, _ = read_table(block, offset)
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
    if is_taken(block, start, end):
        return
    is_last = not block.data[end:].strip(b"\0")
    if is_last and all(kept_end <= start for _, kept_end in kept):
        del block.data[start:]
    else:
        block.data[start:end] = bytes(end - start)
