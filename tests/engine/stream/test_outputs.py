"""Results are stored only below their root, never through a link, and a missing root is not created."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from engine.errors import SetupError, SkipImage
from engine.stream.outputs import HIDDEN, Output


def test_a_stored_result_is_complete_at_its_location(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"))
    output.write("a/b.jpg", b"image")
    assert (tmp_path / "out/a/b.jpg").read_bytes() == b"image"
    assert output.size("a/b.jpg") == 5
    assert output.size("other.jpg") is None
    assert output.uri("a/b.jpg") == (tmp_path / "out/a/b.jpg").as_uri()
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["b.jpg"]


def test_receipts_are_found_again(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"))
    assert output.read_receipt("ab" * 32) is None
    output.write_receipt("ab" * 32, b"{}")
    assert Output(str(tmp_path / "out")).read_receipt("ab" * 32) == b"{}"


def test_an_output_root_that_disappears_is_not_created_again(tmp_path: Path) -> None:
    root = tmp_path / "out"
    output = Output(str(root))
    shutil.rmtree(root)
    with pytest.raises(OSError, match="is gone"):
        output.write("a/b.jpg", b"image")
    output.write_receipt("ab" * 32, b"{}")
    assert not root.exists()
    root.mkdir()  # the mount point of a disk
    with pytest.raises(OSError, match="is gone"):
        output.write("a/b.jpg", b"image")


def test_no_result_is_written_through_a_linked_folder(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"))
    (tmp_path / "other").mkdir()
    (tmp_path / "out/way").symlink_to(tmp_path / "other")
    for name in ("way/a.jpg", "way/deep/a.jpg"):
        with pytest.raises(SkipImage, match="way is a symbolic link"):
            output.write(name, b"image")
    assert list((tmp_path / "other").iterdir()) == []


def test_a_link_at_the_path_of_a_result_is_replaced(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"))
    (tmp_path / "other.jpg").write_bytes(b"precious")
    (tmp_path / "out/a.jpg").symlink_to(tmp_path / "other.jpg")
    assert output.size("a.jpg") != len(b"precious")
    output.write("a.jpg", b"image")
    assert (tmp_path / "other.jpg").read_bytes() == b"precious"
    assert not (tmp_path / "out/a.jpg").is_symlink()


@pytest.mark.parametrize("planted", [".solstice", ".solstice/partial"])
def test_a_link_in_place_of_the_temporary_folder_is_refused(planted: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "partial").mkdir(parents=True)
    for path in (other / "old", other / "partial/old"):
        path.write_bytes(b"precious")
        os.utime(path, (0, 0))
    (tmp_path / "out" / planted).parent.mkdir(parents=True)
    (tmp_path / "out" / planted).symlink_to(other)
    with pytest.raises(SetupError, match="is a symbolic link"):
        Output(str(tmp_path / "out"))
    assert sorted(path.name for path in other.rglob("*")) == ["old", "old", "partial"]


def test_a_receipt_behind_a_link_is_not_read(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"))
    output.write_receipt("ab" * 32, b"{}")
    receipt = next((tmp_path / "out" / HIDDEN / "receipts").rglob("*.json"))
    receipt.rename(tmp_path / "elsewhere.json")
    receipt.symlink_to(tmp_path / "elsewhere.json")
    assert output.read_receipt("ab" * 32) is None


def test_a_folder_at_the_path_of_a_result_fails_only_this_job(tmp_path: Path) -> None:
    output = Output(str(tmp_path / "out"))
    output.write("a/b.jpg", b"image")
    for name in ("a", "a/b.jpg/c.jpg"):
        with pytest.raises(SkipImage, match="cannot be written"):
            output.write(name, b"image")


def test_old_temporary_files_are_deleted_and_new_ones_kept(tmp_path: Path) -> None:
    partial = tmp_path / "out" / HIDDEN / "partial"
    partial.mkdir(parents=True)
    for name, age_s in (("old", 7200.0), ("new", 60.0)):
        (partial / name).write_bytes(b"half")
        os.utime(partial / name, (time.time() - age_s,) * 2)
    Output(str(tmp_path / "out"))
    assert [path.name for path in partial.iterdir()] == ["new"]


@pytest.mark.parametrize("root", ["https://127.0.0.1:1/out", "nothing://there"])
def test_an_unwritable_root_is_an_error(root: str) -> None:
    with pytest.raises(SetupError):
        Output(root)


def test_a_file_at_the_path_of_the_root_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(SetupError, match="cannot be written to"):
        Output(str(tmp_path / "out"))
