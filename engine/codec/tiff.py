"""Directories of a TIFF: read tags as they are stored, choose a reader, and check compressed strips for damage.

TIFF 6.0, sections 2 and 8; BigTIFF has 8-byte counts and offsets. Pillow reads most TIFFs. It misreads samples of 16
bits in separate planes, gray of 8-bit signed or 32-bit unsigned integers, and old palettes, and cannot read 10, 12 and
14 bits, floating-point colour and big-endian BigTIFFs; tifffile reads these (`engine.codec.deep`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engine.codec import jpeg
from engine.codec.bounds import require_few_scans
from engine.codec.damage import Damaged, require_intact_deflate
from engine.errors import SkipImage

BYTES_PER_VALUE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 129: 1}
BYTES_PER_VALUE_BIG = BYTES_PER_VALUE | {16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_HEADS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_MAX_ENTRIES = 65_536
_MAX_DIRECTORIES = 16
_LEAST_TILE_PIXELS = 1 << 20
MAX_SAMPLES = 64
"""Channels of a TIFF; images of satellites have some dozens."""

KIND_OF_IMAGE, OLD_KIND_OF_IMAGE, WIDTH, HEIGHT = 254, 255, 256, 257
BITS, COMPRESSION, PHOTOMETRIC, PLANES, SAMPLE_FORMAT = 258, 259, 262, 284, 339
STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES, JPEG_TABLES = 273, 279, 324, 325, 347
SUB_DIRECTORIES, COLOUR_MAP, DNG_VERSION = 330, 320, 50706
EXTRA_SAMPLES, SAMPLES, TILE_WIDTH, TILE_HEIGHT = 338, 277, 322, 323
ALPHA = (1, 2)
"""Kinds of extra samples that are alpha, premultiplied or not."""
_DEFLATE, _JPEG = (8, 32946), 7
_SENSOR = (32803, 34892)
"""Photometric interpretations of RAW files: colour filter array and linear RAW."""


@dataclass(frozen=True)
class Value:
    """What one entry of a directory holds."""

    kind: int
    """Type as in TIFF 6.0."""
    count: int
    data: bytes
    """In the byte order of the file."""
    order: str
    """`<` or `>`, as in `struct`."""

    def integers(self) -> tuple[int, ...]:
        """Return the value as integers; empty for any other type."""
        letter = _INTEGERS.get(self.kind)
        return () if letter is None else struct.unpack(f"{self.order}{self.count}{letter}", self.data)


Directory = Mapping[int, Value]


def is_tiff(data: bytes) -> bool:
    """Return whether the data start like a TIFF or BigTIFF."""
    return data[:4] in _HEADS


def first_directory(data: bytes) -> Directory:
    """Return the first directory; empty where it cannot be read. Entries that point outside the file are left out."""
    return directory_at(data, first_offset(data))


def first_offset(data: bytes) -> int:
    """Return the offset of the first directory; 0 where the header is broken."""
    if not is_tiff(data):
        return 0
    order, big = _layout(data)
    try:
        return int(struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0])
    except struct.error:
        return 0


def directory_at(data: bytes, offset: int) -> Directory:
    """Return the directory at `offset`; as `first_directory`."""
    order, _ = _layout(data)
    found: dict[int, Value] = {}
    left = _most_value_bytes(data)
    for tag, kind, count, start, size in _entries(data, offset):
        left -= size
        if left < 0:
            break
        if start + size <= len(data):
            found.setdefault(tag, Value(kind, count, data[start : start + size], order))
    return found


def _entries(data: bytes, offset: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield tag, kind and count of each entry of a directory, and the start and size of its value in bytes."""
    order, big = _layout(data)
    sizes = BYTES_PER_VALUE_BIG if big else BYTES_PER_VALUE
    count_layout, row_layout, inline = ("Q", "HHQQ", 8) if big else ("H", "HHII", 4)
    try:
        (count,) = struct.unpack_from(order + count_layout, data, offset)
    except struct.error:
        return
    at = offset + struct.calcsize(count_layout)
    row_bytes = struct.calcsize(order + row_layout)
    for row in range(min(count, _MAX_ENTRIES)):
        if offset < 8 or at + (row + 1) * row_bytes > len(data):
            break
        tag, kind, number, start = struct.unpack_from(order + row_layout, data, at + row * row_bytes)
        size = sizes.get(kind, 0) * number
        if size:
            yield tag, kind, number, start if size > inline else at + (row + 1) * row_bytes - inline, size


def _most_value_bytes(data: bytes) -> int:
    """Return the bytes that the values of a directory may have together; those of an honest one do not overlap."""
    return 4 * len(data)


def with_photo_first(data: bytes, shared: frozenset[int]) -> bytes:
    """Return a TIFF whose first directory is a photo, where the file begins with a smaller copy of it (a thumbnail).

    The photo is the largest image in the chain of directories, or below the first one, that is no smaller copy of
    another. Its directory is written anew behind the file, with the tags of `shared` that only the thumbnail's has.
    Any other file is returned as it is.
    """
    first = first_directory(data)
    if not _is_reduced(first):
        return data
    below = first[SUB_DIRECTORIES].integers() if SUB_DIRECTORIES in first else ()
    offsets = [*_chain(data), *below[:_MAX_DIRECTORIES]]
    photos = [
        (_num_pixels(table), offset) for offset in offsets if not _is_reduced(table := directory_at(data, offset))
    ]
    num_pixels, offset = max(photos, default=(0, 0))
    if num_pixels <= _num_pixels(first):
        return data
    order, big = _layout(data)
    count_kind, _, kind = _row_layout(big)
    own, following = _rows(data, offset)
    others, _ = _rows(data, first_offset(data))
    rows = {tag: row for tag, row in others.items() if tag in shared} | own
    fill = bytes(-len(data) % 8)
    at, start = 8 if big else 4, len(data) + len(fill)
    directory = struct.pack(order + count_kind, len(rows)) + b"".join(rows[tag] for tag in sorted(rows)) + following
    head = data[:at] + struct.pack(order + kind, start)
    return b"".join([head, data[len(head) :], fill, directory])


def _is_reduced(tags: Directory) -> bool:
    """Return whether a directory holds a smaller copy of another image."""
    kind, old_kind = _integers(tags, KIND_OF_IMAGE), _integers(tags, OLD_KIND_OF_IMAGE)
    return bool(kind and kind[0] & 1) or (not kind and old_kind[:1] == (2,))


def _num_pixels(tags: Directory) -> int:
    width, height = _integers(tags, WIDTH), _integers(tags, HEIGHT)
    return width[0] * height[0] if width and height else 0


def _chain(data: bytes) -> Iterator[int]:
    """Yield the offsets of the directories that follow each other, each once."""
    order, big = _layout(data)
    offset, seen = first_offset(data), set[int]()
    while offset and offset not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(offset)
        yield offset
        following = _rows(data, offset)[1]
        offset = struct.unpack(order + _row_layout(big)[2], following)[0]


def _rows(data: bytes, offset: int) -> tuple[dict[int, bytes], bytes]:
    """Return the rows of a directory as they are stored, by tag, and the offset of the next one; zero for none."""
    order, big = _layout(data)
    count_kind, row_bytes, kind = _row_layout(big)
    none = bytes(struct.calcsize(kind))
    start = offset + struct.calcsize("=" + count_kind)
    if start > len(data):
        return {}, none
    (count,) = struct.unpack_from(order + count_kind, data, offset)
    end = start + min(count, _MAX_ENTRIES) * row_bytes
    rows = (data[at : at + row_bytes] for at in range(start, min(end, len(data) - row_bytes + 1), row_bytes))
    following = data[end : end + len(none)]
    return {struct.unpack_from(order + "H", row)[0]: row for row in rows}, following if len(following) == len(
        none
    ) else none


def _row_layout(big: bool) -> tuple[str, int, str]:
    """Return the type of a directory's count, the bytes of a row, and the type of an offset, as in `struct`."""
    return ("Q", 20, "Q") if big else ("H", 12, "I")


def is_raw(data: bytes) -> bool:
    """Return whether the data are a RAW photo, by signature, or by a sensor's image in a directory of a TIFF."""
    if data[:4] == b"II*\x00" and data[8:10] == b"CR":
        return True
    if data[4:12] == b"ftypcrx " or data.startswith(_RAW_HEADS):
        return True
    if not is_tiff(data):
        return False
    first = first_directory(data)
    if DNG_VERSION in first:
        return True
    below = first[SUB_DIRECTORIES].integers() if SUB_DIRECTORIES in first else ()
    return any(_is_sensor(table) for table in [first, *(directory_at(data, offset) for offset in below[:16])])


_RAW_HEADS = (
    b"FUJIFILMCCD-RAW",
    b"IIRO",
    b"IIRS",
    b"MMOR",
    b"IIU\x00",
    b"II\x1a\x00\x00\x00HEAPCCDR",
    b"FOVb",
    b"\x00MRM",
)


def needs_deep_reader(data: bytes) -> bool:
    """Return whether Pillow would misread the first image, or read fewer bits than it has."""
    tags = first_directory(data)
    sizes = _integers(tags, BITS) or (1,)
    formats = set(_integers(tags, SAMPLE_FORMAT))
    unsigned = formats <= {1, 4}
    if len(sizes) > 1:
        return max(sizes) > 8 or not unsigned
    return (2 in formats and sizes[0] == 8) or (unsigned and (8 < sizes[0] <= 16 or sizes[0] == 32))


def is_misread_by_pillow(data: bytes) -> bool:
    """Return whether Pillow would make other pixels of the first image, not only fewer bits.

    It does of channels that are stored one after the other, of signed integers of 8 bits, and of unsigned ones of 32,
    whose upper half it takes as negative.
    """
    tags = first_directory(data)
    formats = set(_integers(tags, SAMPLE_FORMAT))
    sizes = _integers(tags, BITS) or (1,)
    return 2 in _integers(tags, PLANES) or (2 in formats and 8 in sizes) or (formats <= {1, 4} and sizes == (32,))


def old_palette(data: bytes) -> bytes | None:
    """Return the palette, 3 bytes an entry, where it holds 0 to 255 instead of 0 to 65535; None for any other."""
    tags = first_directory(data)
    values = _integers(tags, COLOUR_MAP)
    if not values or max(values) > 255:
        return None
    third = len(values) // 3
    return bytes(values[channel * third + entry] for entry in range(third) for channel in range(3))


def bits(data: bytes) -> int:
    """Return the largest number of bits per sample of the first image."""
    return max(_integers(first_directory(data), BITS), default=1)


def check(data: bytes) -> None:
    """Raise `Damaged` where a strip or tile compressed by deflate or JPEG is damaged.

    libtiff stops decompressing when it has all pixels and never compares deflate's checksum; warnings of JPEG strips
    are not errors for it. Other compressions have no checksum; what their decoders refuse fails without this check.
    """
    tags = first_directory(data)
    compression = (_integers(tags, COMPRESSION) or (1,))[0]
    if compression in _DEFLATE:
        left = _most_bytes(tags)
        for part in _parts(data, tags):
            try:
                left -= require_intact_deflate(part, left)
            except ValueError as error:
                raise Damaged(f"a deflate strip of the TIFF, {error}") from None
    elif compression == _JPEG:
        tables = tags[JPEG_TABLES].data[:-2] if JPEG_TABLES in tags else b"\xff\xd8"
        for part in _parts(data, tags):
            _check_jpeg(tables + part[2:])


def require_bounded(data: bytes) -> None:
    """Raise `SkipImage` for a TIFF with tags that are far more than its file, or pixels far more than its image.

    Readers read every tag, decode a tile whole, and a JPEG by its own header.
    """
    if sum(min(size, len(data)) for *_, size in _entries(data, first_offset(data))) > _most_value_bytes(data):
        raise SkipImage("tags of a TIFF that overlap, several times as long as the file")
    tags = first_directory(data)
    tile = [_integers(tags, side) for side in (TILE_WIDTH, TILE_HEIGHT)]
    if all(tile):
        width, height = tile[0][0], tile[1][0]
        if width * height > max(_LEAST_TILE_PIXELS, 4 * _num_pixels(tags)):
            raise SkipImage(f"tiles of {width}x{height} in a TIFF of {_num_pixels(tags):,} pixels")
    samples = max(_integers(tags, SAMPLES), default=1)
    if samples > MAX_SAMPLES:
        raise SkipImage(f"{samples:,} channels in a TIFF, over {MAX_SAMPLES}")
    if _JPEG in _integers(tags, COMPRESSION):
        for part in _parts(data, tags):
            _require_small_jpeg(part, max(_LEAST_TILE_PIXELS, 4 * _num_pixels(tags)))


def _require_small_jpeg(data: bytes, most_pixels: int) -> None:
    for marker, body, _ in jpeg.segments(data):
        if marker in jpeg.FRAMES:
            height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
            if width * height > most_pixels:
                raise SkipImage(f"a JPEG strip of {width}x{height} in a smaller TIFF")
            break
    require_few_scans(data)


def _most_bytes(tags: Directory) -> int:
    """Return an upper limit of the bytes of all strips or tiles, which may be padded."""
    bits = max(_integers(tags, BITS), default=1) * max(_integers(tags, SAMPLES), default=1)
    return int(8 * max(_LEAST_TILE_PIXELS, _num_pixels(tags)) * bits // 8)


def _check_jpeg(data: bytes) -> None:
    try:
        jpeg.decode(data, "GRAY", least=(1, 1))
    except Damaged as error:
        raise Damaged(f"a JPEG strip of the TIFF, {error.reason}") from None
    except SkipImage:  # colours that libjpeg-turbo does not convert; the reader finds truncation
        return


def _parts(data: bytes, tags: Directory) -> Iterator[bytes]:
    offsets = _integers(tags, STRIP_OFFSETS) or _integers(tags, TILE_OFFSETS)
    sizes = _integers(tags, STRIP_BYTES) or _integers(tags, TILE_BYTES)
    for offset, size in zip(offsets, sizes, strict=False):
        if size:
            yield data[offset : offset + size]


def _is_sensor(tags: Directory) -> bool:
    return bool(set(_integers(tags, PHOTOMETRIC)) & set(_SENSOR))


def _integers(tags: Directory, tag: int) -> tuple[int, ...]:
    return tags[tag].integers() if tag in tags else ()


def _layout(data: bytes) -> tuple[str, bool]:
    """Return the byte order for `struct`, and whether it is a BigTIFF."""
    order = ">" if data[:2] == b"MM" else "<"
    return order, data[2:4] in (b"+\x00", b"\x00+")
