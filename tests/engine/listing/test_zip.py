"""Inputs of zips, whole and damaged."""

from __future__ import annotations

import os
import pickle
import stat
import zipfile
from pathlib import Path

import pytest

from engine.errors import SetupError
from engine.listing import list_inputs
from tests.engine.listing.files import reason


def zipped(path: Path, *names: str, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.mkdir("folder.jpg")
        for name in names:
            archive.writestr(name, os.urandom(50) * 100)
    return path


def test_a_zip_lists_its_photos(tmp_path: Path) -> None:
    src = zipped(tmp_path / "photos.zip", "b.jpg", "a/c.png", "readme.md", "__MACOSX/._b.jpg", "../e.jpg")
    items = list(list_inputs(src))
    assert [item.key for item in items] == ["b.jpg", "a/c.png", "../e.jpg"]
    # Each is read while the archive is open, which is while the listing is iterated over.
    assert [len(item.read()) for item in list_inputs(src) if ".." not in item.key] == [5000, 5000]
    assert dict(list_inputs(src).left_out) == {".md": 1, "__MACOSX/": 1}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_of_a_zip_fails_alone(compression: int, tmp_path: Path) -> None:
    src = zipped(tmp_path / "photos.zip", "a.jpg", "b.jpg", compression=compression)
    data = bytearray(src.read_bytes())
    start = data.index(b"a.jpg") + 20
    data[start : start + 20] = bytes(byte ^ 0xFF for byte in data[start : start + 20])
    src.write_bytes(data)
    results = [reason(item) if item.key == "a.jpg" else item.read() for item in list_inputs(src)]
    assert str(results[0]).startswith("cannot be read from the zip: ")
    assert len(results[1]) == 5000


def test_an_encrypted_member_fails_with_its_reason(tmp_path: Path) -> None:
    src = zipped(tmp_path / "photos.zip", "a.jpg")
    data = bytearray(src.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag that says encrypted, in both headers
        at = data.rindex(signature)
        data[at + offset] |= 1
    src.write_bytes(data)
    reasons = [reason(item) for item in list_inputs(src)]
    assert len(reasons) == 1
    assert "encrypted" in reasons[0]


def test_of_two_members_with_one_name_the_last_counts_and_links_are_left_out(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("a.jpg", b"old")
        archive.writestr(link, "a.jpg")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.jpg", b"new")
    inventory = list_inputs(tmp_path / "z.zip")
    assert [(item.key, item.read()) for item in inventory] == [("a.jpg", b"new")]
    assert inventory.left_out == {"older copies": 1, "links": 1}


def test_members_can_be_read_in_another_process(tmp_path: Path) -> None:
    items = pickle.loads(pickle.dumps(list_inputs(zipped(tmp_path / "z.zip", "a.jpg", "b.jpg")).inputs))
    assert [len(item.read()) for item in items] == [5000, 5000]


def test_the_size_of_a_member_is_known_before_it_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", bytes(50_000_000))
    assert (tmp_path / "z.zip").stat().st_size < 100_000
    (item,) = list_inputs(tmp_path / "z.zip")
    assert item.num_bytes == 50_000_000


def test_a_damaged_directory_is_a_sentence(tmp_path: Path) -> None:
    src = zipped(tmp_path / "z.zip", "a.jpg")
    data = bytearray(src.read_bytes())
    data[data.rindex(b"PK\x01\x02")] ^= 0xFF
    src.write_bytes(data)
    with pytest.raises(SetupError, match="cannot be read"):
        list_inputs(src)
