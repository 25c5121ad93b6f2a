"""Correct EXIF blocks in place; malformed blocks raise no other error."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.codec.metadata import exif
from engine.codec.metadata.exif import ExifError, claims_adobe_rgb, corrected, open_block, orientation, read_table
from engine.codec.tiff import BYTES_PER_VALUE

MAKE, MAKER_NOTE, GPS_LATITUDE = 0x010F, 0x927C, 0x0002
Row = tuple[int, int, int, bytes]
"""Tag, type, count, value bytes."""


def short(order: str, tag: int, value: int) -> Row:
    return tag, 3, 1, struct.pack(order + "H", value)


def long(order: str, tag: int, value: int) -> Row:
    return tag, 4, 1, struct.pack(order + "I", value)


def build(order: str, tables: dict[str, list[Row]], thumbnail: bytes = b"", tail: bytes = b"") -> bytes:
    """Return an EXIF block: directories with their pointers, then their values, then the thumbnail."""
    pointers = {"exif": ("root", exif.EXIF_IFD), "gps": ("root", exif.GPS_IFD), "interop": ("exif", exif.INTEROP_IFD)}
    tables = {name: sorted(rows) for name, rows in tables.items()}
    for name, (parent, tag) in pointers.items():
        if name in tables:
            tables[parent] = sorted([*tables[parent], long(order, tag, 0)])
    if thumbnail:
        tables["thumbnail"] = [long(order, 0x0201, 0), long(order, 0x0202, len(thumbnail))]
    at, offsets = 8, {}
    for name, rows in tables.items():
        offsets[name] = at
        at += 2 + 12 * len(rows) + 4
    values_at = at
    thumbnail_at = at + sum(
        len(value) + len(value) % 2 for rows in tables.values() for *_, value in rows if len(value) > 4
    )
    body, values = b"", b""
    for name, rows in tables.items():
        body += struct.pack(order + "H", len(rows))
        for tag, kind, count, value in rows:
            target = next(
                (n for n, (parent, t) in pointers.items() if n in tables and (parent, t) == (name, tag)), None
            )
            if target is not None:
                value = struct.pack(order + "I", offsets[target])
            if name == "thumbnail" and tag == 0x0201:
                value = struct.pack(order + "I", thumbnail_at)
            if len(value) > 4:
                cell = struct.pack(order + "I", values_at + len(values))
                values += value + b"\0" * (len(value) % 2)
            else:
                cell = value.ljust(4, b"\0")
            body += struct.pack(order + "HHI", tag, kind, count) + cell
        following = offsets["thumbnail"] if name == "root" and thumbnail else 0
        body += struct.pack(order + "I", following)
    header = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HI", 42, 8)
    return header + body + values + thumbnail + tail


def camera(order: str, turned: int = 6) -> dict[str, list[Row]]:
    return {
        "root": [
            (MAKE, 2, 8, b"Maker Co"),
            short(order, exif.ORIENTATION, turned),
            long(order, 0x0100, 4000),
            long(order, 0x0101, 3000),
        ],
        "exif": [
            long(order, 0xA002, 4000),
            short(order, 0xA003, 3000),
            short(order, exif.COLOUR_SPACE, 65535),
            (MAKER_NOTE, 7, 40, bytes(range(40))),
        ],
        "gps": [(GPS_LATITUDE, 5, 3, struct.pack(order + "6I", 48, 1, 12, 1, 30, 1))],
        "interop": [(exif.INTEROP_INDEX, 2, 4, b"R03\0")],
    }


def values(block: bytes) -> dict[str, dict[int, int | bytes]]:
    """Return the values of every directory: integers as numbers, other types as bytes."""
    opened = open_block(block)
    found: dict[str, dict[int, int | bytes]] = {}
    for name, entries in exif.walk(opened, exif.first_table(opened), "root"):
        found[name] = {}
        for entry in entries:
            number = exif.as_integer(opened, entry)
            size = BYTES_PER_VALUE[entry.kind] * entry.count
            at = exif.block_offset(opened, entry)
            found[name][entry.tag] = number if number is not None else block[at : at + size] if size > 4 else entry.cell
    return found


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("turned", range(1, 9))
def test_orientation_is_read_in_either_byte_order(order: str, turned: int) -> None:
    assert orientation(build(order, camera(order, turned))) == turned


@pytest.mark.parametrize("turned", [0, 9, 255, 65535])
def test_an_undefined_orientation_is_upright(turned: int) -> None:
    assert orientation(build("<", camera("<", turned))) == 1


@pytest.mark.parametrize("row", [(exif.ORIENTATION, 2, 4, b"six\0"), (exif.ORIENTATION, 3, 2, b"\6\0\6\0")])
def test_an_orientation_of_the_wrong_type_is_upright(row: Row) -> None:
    assert orientation(build("<", {"root": [row]})) == 1


@pytest.mark.parametrize(
    "block", [b"", b"II", b"II*\0", b"II*\0\xff\xff\xff\xff", b"nothing like EXIF", b"II*\0\0\0\0\0"]
)
def test_a_block_that_is_not_exif_is_upright_and_cannot_be_corrected(block: bytes) -> None:
    assert orientation(block) == 1
    with pytest.raises(ExifError):
        corrected(block, 10, 20, srgb=True)


@pytest.mark.parametrize("order", "<>")
def test_values_that_the_new_image_changes_are_corrected(order: str) -> None:
    block, notes = corrected(build(order, camera(order)), 640, 853, srgb=True)
    found = values(block)
    assert notes == []
    assert found["root"][exif.ORIENTATION] == 1
    assert (found["root"][0x0100], found["root"][0x0101]) == (640, 853)
    assert (found["exif"][0xA002], found["exif"][0xA003]) == (640, 853)
    assert found["exif"][exif.COLOUR_SPACE] == 1
    assert found["interop"][exif.INTEROP_INDEX] == b"R98\0"


def test_the_colour_space_is_kept_with_the_profile() -> None:
    found = values(corrected(build("<", camera("<")), 640, 853, srgb=False)[0])
    assert found["exif"][exif.COLOUR_SPACE] == 65535
    assert found["interop"][exif.INTEROP_INDEX] == b"R03\0"


@pytest.mark.parametrize("order", "<>")
def test_all_other_values_keep_their_offsets(order: str) -> None:
    before = build(order, camera(order))
    after, _ = corrected(before, 640, 853, srgb=True)
    note = bytes(range(40))
    assert after.index(note) == before.index(note), "a MakerNote must not move, since it contains offsets"
    assert values(after)["gps"] == values(before)["gps"]
    assert values(after)["root"][MAKE] == b"Maker Co"


def test_a_thumbnail_at_the_end_is_cut_off() -> None:
    thumbnail = b"\xff\xd8 the old picture \xff\xd9"
    without = build("<", camera("<"))
    block, _ = corrected(build("<", camera("<"), thumbnail), 640, 853, srgb=True)
    assert thumbnail[:8] not in block
    assert len(block) < len(without) + 40
    assert read_table(open_block(block), 8)[1] == 0


def test_a_thumbnail_before_other_data_is_blanked_and_nothing_moves() -> None:
    thumbnail = b"\xff\xd8 the old picture \xff\xd9"
    before = build("<", camera("<"), thumbnail, tail=b"data of the maker")
    after, _ = corrected(before, 640, 853, srgb=True)
    assert b"old picture" not in after
    assert len(after) == len(before)
    assert after.endswith(b"data of the maker")


def test_only_a_value_outside_the_block_is_dropped() -> None:
    block = bytearray(build("<", camera("<")))
    at = block.index(struct.pack("<HHI", MAKE, 2, 8)) + 8
    block[at : at + 4] = struct.pack("<I", 4_000_000_000)
    after, notes = corrected(bytes(block), 640, 853, srgb=True)
    assert MAKE not in values(after)["root"]
    assert values(after)["exif"][0xA002] == 640
    assert len(notes) == 1
    assert "outside" in notes[0]


@pytest.mark.parametrize("target", [8, 0, 4_000_000_000, 13])
def test_a_directory_that_is_its_own_parent_or_nowhere_is_dropped(target: int) -> None:
    block = bytearray(build("<", camera("<")))
    at = block.index(struct.pack("<HHI", exif.EXIF_IFD, 4, 1)) + 8
    block[at : at + 4] = struct.pack("<I", target)
    after, notes = corrected(bytes(block), 640, 853, srgb=True)
    assert set(values(after)) == {"root", "gps"}
    assert values(after)["root"][exif.ORIENTATION] == 1
    assert len(notes) == 1


def test_tags_about_the_storage_of_the_old_pixels_are_dropped() -> None:
    tables = {"root": [short("<", 0x0103, 7), long("<", 0x0111, 4096), short("<", exif.ORIENTATION, 3)]}
    after, _ = corrected(build("<", tables), 640, 853, srgb=True)
    assert values(after)["root"] == {exif.ORIENTATION: 1}


def test_remove_the_orientation() -> None:
    block, _ = corrected(build("<", camera("<")), 640, 853, srgb=True)
    found = values(exif.without_orientation(block))
    assert exif.ORIENTATION not in found["root"]
    assert found["root"].keys() | {exif.ORIENTATION} == values(block)["root"].keys()
    assert found["exif"] == values(block)["exif"]


def test_adobe_rgb_is_recognised_without_a_profile() -> None:
    assert claims_adobe_rgb(build(">", camera(">")))
    assert not claims_adobe_rgb(corrected(build(">", camera(">")), 1, 1, srgb=True)[0])
    assert not claims_adobe_rgb(b"II*\0")


@settings(deadline=None)
@given(st.data())
def test_a_damaged_block_is_refused_or_corrected_to_a_sound_one(data: st.DataObject) -> None:
    """After any change of bytes: an ExifError, or a sound block that a second correction leaves unchanged."""
    block = bytearray(build("<", camera("<"), b"\xff\xd8 the old picture \xff\xd9"))
    for _ in range(data.draw(st.integers(1, 8))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    del block[data.draw(st.integers(8, len(block))) :]
    assert 1 <= orientation(bytes(block)) <= 8
    try:
        once, _ = corrected(bytes(block), 640, 853, srgb=True)
    except ExifError:
        return
    assert len(once) <= len(block)
    assert orientation(once) == 1
    assert corrected(once, 640, 853, srgb=True) == (once, [])


def without_following_field(order: str) -> bytes:
    """Return a block whose root and EXIF directories have no next-IFD field: their first values follow at once."""
    exposure = struct.pack(order + "II", 0xFFFFFFFF, 1)
    root_at, exif_at = 8, 8 + 2 + 2 * 12 + 6
    root = struct.pack(order + "HHHII", 2, MAKE, 2, 6, root_at + 26)
    root += struct.pack(order + "HHII", exif.EXIF_IFD, 4, 1, exif_at) + b"Maker\0"
    below = struct.pack(order + "HHHII", 1, 0x829A, 5, 1, exif_at + 14) + exposure
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + root + below


@pytest.mark.parametrize("order", ["<", ">"])
def test_values_directly_behind_a_directory_are_kept(order: str) -> None:
    block = without_following_field(order)
    after, notes = corrected(block, 40, 30, srgb=True)
    assert after == block
    assert notes == []


@pytest.mark.parametrize("order", ["<", ">"])
def test_directories_are_built_with_all_values_and_pointers(order: str) -> None:
    """A block that is rebuilt in either byte order has the same values."""
    source = without_following_field(order)
    for target in ("<", ">"):
        head = (b"II*\0" if target == "<" else b"MM\0*") + struct.pack(target + "I", 8)
        again = exif.tables_of(head + exif.built(exif.tables_of(source), target, 8))
        assert again["root"][MAKE].data == b"Maker\0"
        assert again["exif"][0x829A].data == struct.pack(target + "II", 0xFFFFFFFF, 1)
