"""Boxes of AVIF, HEIC and JPEG XL files and chunks of WebP: what they hold besides the image, and a repair.

The syntax is that of ISO/IEC 14496-12 (boxes), 23008-12 (items and their properties) and RFC 9649 (WebP). Nothing here
decodes; a file that does not follow the syntax is left as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_TOP = frozenset({b"ftyp", b"meta", b"mdat", b"free", b"skip", b"moov", b"mfra", b"moof", b"pdin", b"styp", b"sidx"})
_TOP_OF_JXL = frozenset(
    {b"JXL ", b"ftyp", b"free", b"jxlc", b"jxlp", b"jxll", b"jxli", b"jbrd", b"Exif", b"xml ", b"brob"}
)
_ITEMS = frozenset({b"av01", b"hvc1", b"hvc2", b"lhv1", b"grid", b"iden", b"iovl", b"Exif"})
_XMP = b"application/rdf+xml"
_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:avc:2015:auxid:1")
_WEBP = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "})


@dataclass(frozen=True)
class _Box:
    kind: bytes
    start: int
    body: int
    end: int


@dataclass(frozen=True)
class _Associations:
    """The properties of one item, as the `ipma` box lists them."""

    item: int
    count_at: int
    """Position of the number of entries; the entries follow."""
    indices: tuple[int, ...]
    """Numbers of properties, from 1."""


def left_out_of_boxes(data: bytes, format: str) -> Iterator[str]:
    """Yield a remark on what an AVIF, HEIC or JPEG XL holds besides the image and is not carried over."""
    if format == "JXL":
        names = {_name(box.kind) for box in _boxes(data, 0, len(data)) if box.kind not in _TOP_OF_JXL}
    else:
        names = {_name(box.kind) for box in _boxes(data, 0, len(data)) if box.kind not in _TOP}
        names |= set(_other_items(data)) | set(_other_auxiliaries(data))
    if names and data[4:8] in (b"ftyp", b"JXL "):
        yield f"left out: {format} boxes {', '.join(sorted(names))}"


def left_out_of_webp(data: bytes) -> Iterator[str]:
    """Yield a remark on the chunks of a WebP that are not carried over."""
    at, names = 12, set()
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end and data.startswith(b"RIFF"):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind not in _WEBP and at + 8 + size <= end:
            names.add(_name(kind))
        at += 8 + size + size % 2
    if names:
        yield f"left out: WebP chunks {', '.join(sorted(names))}"


def code_points(data: bytes) -> tuple[int, int]:
    """Return colour primaries and transfer of the image of an AVIF or HEIC, by ITU-T H.273; 2 for unspecified.

    They are those of the first `nclx` box; images of one file that differ in it are previews and gain maps.
    """
    for box in _properties(data, b"colr"):
        if data[box.body : box.body + 4] == b"nclx" and box.body + 8 <= box.end:
            primaries, transfer = struct.unpack_from(">HH", data, box.body + 4)
            return primaries, transfer
    return 2, 2


def with_size_of_alpha(data: bytes) -> bytes:
    """Return an AVIF whose alpha has a size (`ispe`): that of the image itself, where the file names none.

    Early encoders wrote none, and strict readers refuse such files. Any other file is returned as it is.
    """
    if data[4:8] != b"ftyp" or b"avif" not in data[8:64]:
        return data
    try:
        return _with_size_of_alpha(data)
    except (struct.error, IndexError, StopIteration):
        return data


def _with_size_of_alpha(data: bytes) -> bytes:
    meta = _only(data, b"meta", 0, len(data))
    inside = meta.body + 4, meta.end
    iprp, iloc, pitm = (_only(data, kind, *inside) for kind in (b"iprp", b"iloc", b"pitm"))
    ipco, ipma = (_only(data, kind, iprp.body, iprp.end) for kind in (b"ipco", b"ipma"))
    properties = list(_boxes(data, ipco.body, ipco.end))
    lists = list(_associations(data, ipma))
    (primary,) = struct.unpack_from(">I" if data[pitm.body] else ">H", data, pitm.body + 4)
    image = next(entry for entry in lists if entry.item == primary)
    size = next(index for index in image.indices if properties[index - 1].kind == b"ispe")
    wide = data[ipma.body + 3] & 1
    for entry in lists:
        kinds = [properties[index - 1] for index in entry.indices]
        if any(box.kind == b"ispe" for box in kinds) or not any(_is_alpha(data, box) for box in kinds):
            continue
        added = struct.pack(">H", size) if wide else bytes([size])
        changed = bytearray(data)
        changed[entry.count_at] += 1
        for box in (meta, iprp, ipma):
            (old,) = struct.unpack_from(">I", data, box.start)
            struct.pack_into(">I", changed, box.start, old + len(added))
        _shift_items(changed, iloc, meta.end, len(added))
        at = entry.count_at + 1
        return bytes(changed[:at] + added + changed[at:])
    return data


def _is_alpha(data: bytes, box: _Box) -> bool:
    return box.kind == b"auxC" and data[box.body + 4 : box.end].startswith(_ALPHA)


def _associations(data: bytes, ipma: _Box) -> Iterator[_Associations]:
    version, wide = data[ipma.body], data[ipma.body + 3] & 1
    (count,) = struct.unpack_from(">I", data, ipma.body + 4)
    at = ipma.body + 8
    for _ in range(count):
        (item,) = struct.unpack_from(">I" if version else ">H", data, at)
        at += 4 if version else 2
        number = data[at]
        step = 2 if wide else 1
        entries = [data[at + 1 + step * i : at + 1 + step * (i + 1)] for i in range(number)]
        yield _Associations(item, at, tuple(int.from_bytes(entry) & (0x7FFF if wide else 0x7F) for entry in entries))
        at += 1 + step * number


def _shift_items(data: bytearray, iloc: _Box, behind: int, by: int) -> None:
    """Add `by` to the offsets of items that are stored at or after `behind` in the file."""
    for item in list(_locations(data, iloc)):
        base_at, base_end = item.base_at
        base = int.from_bytes(data[base_at:base_end])
        if item.method != 0:
            continue
        if base >= behind and base_at < base_end:
            data[base_at:base_end] = (base + by).to_bytes(base_end - base_at)
            continue
        for (at, end), _ in item.extents:
            offset = int.from_bytes(data[at:end])
            if base + offset >= behind:
                data[at:end] = (offset + by).to_bytes(end - at)


@dataclass(frozen=True)
class _ItemLocation:
    """Where the parts of an item are, by the `iloc` box."""

    method: int
    """0 for positions in the file."""
    base_at: tuple[int, int]
    """Start and end of the field of the base offset, which may be empty."""
    extents: tuple[tuple[tuple[int, int], int], ...]
    """Start and end of the field of each offset, and the length of the part."""


def _locations(data: bytes | bytearray, iloc: _Box) -> Iterator[_ItemLocation]:
    version = data[iloc.body]
    offset_size, length_size = data[iloc.body + 4] >> 4, data[iloc.body + 4] & 15
    base_size, index_size = data[iloc.body + 5] >> 4, data[iloc.body + 5] & 15 if version else 0
    at = iloc.body + 6
    count = int.from_bytes(data[at : at + (4 if version == 2 else 2)])
    at += 4 if version == 2 else 2
    for _ in range(count):
        at += 4 if version == 2 else 2
        method = data[at + 1] & 15 if version else 0
        at += 4 if version else 2  # construction method, and the number of the file that holds the data
        base_at, at = (at, at + base_size), at + base_size
        number = int.from_bytes(data[at : at + 2])
        at += 2
        extents = []
        for _ in range(number):
            at += index_size
            end = at + offset_size
            extents.append(((at, end), int.from_bytes(data[end : end + length_size])))
            at = end + length_size
        yield _ItemLocation(method, base_at, tuple(extents))


def starts_of_items(data: bytes, num_bytes: int) -> Iterator[bytes]:
    """Yield the first bytes of each item that is stored in the file, at most `num_bytes`."""
    try:
        for meta in _find(data, b"meta", 0, len(data)):
            for iloc in _find(data, b"iloc", meta.body + 4, meta.end):
                for item in _locations(data, iloc):
                    if item.method == 0 and item.extents:
                        (at, end), length = item.extents[0]
                        start = int.from_bytes(data[slice(*item.base_at)]) + int.from_bytes(data[at:end])
                        yield data[start : start + min(length or num_bytes, num_bytes)]
    except IndexError:
        return


def _other_items(data: bytes) -> Iterator[str]:
    """Yield the types of items that are neither images nor metadata that is carried over."""
    for meta in _find(data, b"meta", 0, len(data)):
        for iinf in _find(data, b"iinf", meta.body + 4, meta.end):
            first = iinf.body + (8 if data[iinf.body] else 6)
            for infe in _find(data, b"infe", first, iinf.end):
                version = data[infe.body]
                at = infe.body + (10 if version == 3 else 8)
                kind = data[at : at + 4]
                if version < 2 or kind in _ITEMS or (kind == b"mime" and _XMP in data[at : infe.end]):
                    continue
                yield _name(kind)


def _other_auxiliaries(data: bytes) -> Iterator[str]:
    """Yield the names of auxiliary images besides alpha, such as depth and gain maps."""
    for box in _properties(data, b"auxC"):
        if not _is_alpha(data, box):
            yield data[box.body + 4 : box.end].partition(b"\x00")[0].decode("latin-1")


def _properties(data: bytes, kind: bytes) -> Iterator[_Box]:
    """Yield the properties of one kind that the images of the file have."""
    for meta in _find(data, b"meta", 0, len(data)):
        for iprp in _find(data, b"iprp", meta.body + 4, meta.end):
            for ipco in _find(data, b"ipco", iprp.body, iprp.end):
                yield from _find(data, kind, ipco.body, ipco.end)


def _only(data: bytes, kind: bytes, start: int, end: int) -> _Box:
    return next(_find(data, kind, start, end))


def _find(data: bytes, kind: bytes, start: int, end: int) -> Iterator[_Box]:
    return (box for box in _boxes(data, start, end) if box.kind == kind)


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    """Yield the boxes of a part of a file, up to the first one that does not fit."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1 and start + 16 <= end:
            (size,), head = struct.unpack_from(">Q", data, start + 8), 16
        size = size or end - start
        if size < head or start + size > end:
            return
        yield _Box(kind, start, start + head, start + size)
        start += size


def _name(kind: bytes) -> str:
    """Return a kind as text; bytes that cannot be printed become question marks."""
    return "".join(chr(byte) if 32 <= byte < 127 else "?" for byte in kind).strip()
