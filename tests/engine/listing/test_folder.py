"""Inputs of folders and of lists of paths, with their oddities."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.codec.formats import IMAGE_SUFFIXES
from engine.codec.kinds import RAW_SUFFIXES
from engine.listing import Selection, list_inputs
from tests.engine.listing.files import DATA, fill, keys, left_out, reason
from tests.images import photo


def test_a_folder_is_searched_through_in_a_fixed_order(tmp_path: Path) -> None:
    src = fill(tmp_path, "b.jpg", "a/z.PNG", "a/c/d.tif", "a.jpg", "a/notes.txt", "film.mp4")
    assert keys(src) == ["a/c/d.tif", "a/z.PNG", "a.jpg", "b.jpg"]
    assert {item.read() for item in list_inputs(src)} == {DATA}
    assert len(list_inputs(src)) == 4
    assert left_out(src) == {".txt": 1, ".mp4": 1}


def test_hidden_files_and_folders_and_the_output_folder_are_left_out(tmp_path: Path) -> None:
    src = fill(tmp_path, "a.jpg", ".hidden.jpg", ".cache/b.jpg", "out/c.jpg", "deep/.git/d.jpg")
    assert keys(src, skip=src / "out") == ["a.jpg"]
    assert left_out(src, skip=src / "out") == {"hidden": 3}


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    src = fill(tmp_path / "src", "a/x.jpg")
    fill(tmp_path / "elsewhere", "y.jpg")
    (src / "linked").symlink_to(tmp_path / "elsewhere")
    (src / "a/up").symlink_to(src)
    (src / "again").symlink_to(src / "a")
    assert keys(src) == ["a/x.jpg", "linked/y.jpg"]


def test_a_link_to_the_output_folder_is_left_out_too(tmp_path: Path) -> None:
    src = fill(tmp_path / "src", "a.jpg")
    (src / "results").symlink_to(fill(tmp_path / "out", "a.jpg"))
    assert keys(src, skip=tmp_path / "out") == ["a.jpg"]


def test_unreadable_entries_are_listed_with_their_reasons(tmp_path: Path) -> None:
    """Given a link to nowhere, a link to itself and a pipe, then each fails alone; a folder is a folder by any name."""
    src = fill(tmp_path, "a.jpg", "folder.jpg/b.jpg")
    (src / "gone.jpg").symlink_to("nowhere")
    (src / "loop.jpg").symlink_to("loop.jpg")
    (src / "loop").symlink_to("loop")
    os.mkfifo(src / "pipe.jpg")
    items = {item.key: item for item in list_inputs(src)}
    assert list(items) == ["a.jpg", "folder.jpg/b.jpg", "gone.jpg", "loop.jpg", "pipe.jpg"]
    assert reason(items["gone.jpg"]) == "cannot be read: No such file or directory"
    assert "symbolic links" in reason(items["loop.jpg"])
    assert reason(items["pipe.jpg"]) == "not a regular file"


def test_an_identity_changes_with_size_and_time(tmp_path: Path) -> None:
    path = fill(tmp_path, "a.jpg") / "a.jpg"

    def identity() -> str:
        (item,) = list_inputs(tmp_path)
        return item.identity

    first = identity()
    assert identity() == first
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    second = identity()
    path.write_bytes(DATA + b"!")
    assert len({first, second, identity()}) == 3


def test_a_list_yields_its_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, absolute, repeated, missing paths, and paths outside the current folder, in any spelling."""
    fill(tmp_path, "x.jpg", "here/in/a.jpg", "here/in/b.jpg")
    monkeypatch.chdir(tmp_path / "here")
    Path("in/folder.jpg").mkdir()
    absolute = f"{tmp_path}/here/in/b.jpg"
    lines = [
        "in/a.jpg",
        "",
        f"{absolute}\r",
        "./in/a.jpg",
        "in/../in/a.jpg",
        "in/gone.jpg",
        "../x.jpg",
        "in/folder.jpg",
    ]
    Path("list.txt").write_text("\n".join(lines))
    items = list_inputs(Path("list.txt")).inputs
    assert [item.key for item in items] == ["in/a.jpg", absolute.lstrip("/"), "in/gone.jpg", "x.jpg", "in/folder.jpg"]
    assert items[0].read() == items[1].read() == items[3].read() == DATA
    assert reason(items[2]) == "cannot be read: No such file or directory"
    assert reason(items[4]) == "not a regular file"


def test_two_files_of_a_list_never_share_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "p/a.jpg", "here/p/a.jpg")
    monkeypatch.chdir(tmp_path / "here")
    Path("list.txt").write_text("p/a.jpg\n../p/a.jpg\n./p/a.jpg\n../p/../p/a.jpg\n")
    assert keys(Path("list.txt")) == ["p/a.jpg", f"{tmp_path}/p/a.jpg".lstrip("/")]


@pytest.mark.parametrize(
    "content",
    [
        "in/é.jpg\nin/b.jpg\n".encode("utf-8-sig"),
        "in/é.jpg\r\nin/b.jpg\r\n".encode("utf-16"),
        b"\xfe\xff" + "in/é.jpg\nin/b.jpg".encode("utf-16-be"),
        "in/é.jpg\0in/b.jpg\0".encode(),
    ],
    ids=["UTF-8 with a byte-order mark", "UTF-16 of Windows", "UTF-16 big-endian", "zero bytes, as find -print0"],
)
def test_a_list_may_be_in_any_of_these_encodings(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fill(tmp_path, "in/é.jpg", "in/b.jpg"))
    Path("list.txt").write_bytes(content)
    items = list_inputs(Path("list.txt")).inputs
    assert [item.key for item in items] == ["in/é.jpg", "in/b.jpg"]
    assert {item.read() for item in items} == {DATA}


def test_a_name_that_is_not_utf8_is_listed_as_it_is(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(DATA)
    (item,) = list_inputs(tmp_path)
    assert os.fsencode(item.key) == b"caf\xe9.jpg"
    assert item.read() == DATA


def test_a_file_is_identified_by_its_inode(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    a, b = list_inputs(tmp_path)
    assert a.file_id() == b.file_id() is not None
    (tmp_path / "a.jpg").unlink()
    assert a.file_id() is None


def test_images_are_found_by_their_content_where_the_suffix_names_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given no reader of raw files, then one that is a TIFF by structure is not read for its small preview."""
    monkeypatch.setattr("engine.listing.inputs.IMAGE_SUFFIXES", IMAGE_SUFFIXES - RAW_SUFFIXES)
    (tmp_path / "IMG_1").write_bytes(photo())
    (tmp_path / "IMG_2.dat").write_bytes(photo(format="PNG"))
    (tmp_path / "notes.txt").write_bytes(b"words")
    (tmp_path / "README").write_bytes(b"words")
    (tmp_path / "shot.nef").write_bytes(b"II*\0" + bytes(60))
    (tmp_path / "layers.psd").write_bytes(b"8BPS" + bytes(60))
    os.mkfifo(tmp_path / "pipe")
    inventory = list_inputs(tmp_path)
    assert {item.key: item.suffix for item in inventory} == {"IMG_1": ".jpg", "IMG_2.dat": ".png"}
    assert inventory.left_out == {".txt": 1, "no suffix": 2, ".nef": 1, ".psd": 1}


def test_sidecars_are_listed_apart(tmp_path: Path) -> None:
    inventory = list_inputs(fill(tmp_path, "a.jpg", "a.jpg.xmp", "a.json"))
    assert [item.key for item in inventory.sidecars] == ["a.jpg.xmp", "a.json"]
    assert inventory.left_out == {}


@pytest.mark.parametrize("name", ["@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "System Volume Information"])
def test_folders_of_servers_and_recycle_bins_are_left_out_unless_named(name: str, tmp_path: Path) -> None:
    src = fill(tmp_path, "a.jpg", f"b/{name}/c.jpg")
    assert keys(src) == ["a.jpg"]
    assert left_out(src) == {f"{name}/": 1}
    assert keys(src, selection=Selection(include=("*.jpg", name))) == (
        ["a.jpg"] if name[0] not in "@#$_" else ["a.jpg", f"b/{name}/c.jpg"]
    )


def test_a_folder_with_results_of_solstice_is_left_out_of_an_archive_but_may_be_one(tmp_path: Path) -> None:
    src = fill(tmp_path, "a.jpg", "summer/winter/a.jpg", "summer/winter/.solstice/manifest.sqlite")
    assert keys(src) == ["a.jpg"]
    assert left_out(src) == {"Solstice results/": 1}
    assert keys(src / "summer/winter") == ["a.jpg"]


def test_a_folder_that_is_seen_again_is_counted(tmp_path: Path) -> None:
    src = fill(tmp_path, "a/x.jpg")
    (src / "b").symlink_to("a")
    assert left_out(src) == {"folders seen before/": 1}
