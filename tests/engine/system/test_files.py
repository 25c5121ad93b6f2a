"""Files are written completely or not at all, and never through a link."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.system.files import (
    LinkNotFollowed,
    OpenFolders,
    UnfinishedFile,
    atomic_file,
    folder_within,
    open_within,
    write_atomically,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writing_creates_folders_and_leaves_only_the_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a/b/c.bin", b"content")
    assert (tmp_path / "a/b/c.bin").read_bytes() == b"content"
    assert names(tmp_path / "a/b") == ["c.bin"]


def test_writing_replaces_an_existing_file(tmp_path: Path) -> None:
    for content in (b"old and longer", b"new", b""):
        write_atomically(tmp_path / "c.bin", content)
        assert (tmp_path / "c.bin").read_bytes() == content


def test_the_unfinished_file_is_in_the_given_temporary_folder(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep/c.bin", b"x", tmp_path / "partial")
    assert (tmp_path / "deep/c.bin").read_bytes() == b"x"
    assert names(tmp_path / "partial") == []


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/old").write_bytes(b"old")
    with pytest.raises(OSError, match="directory") as caught:
        write_atomically(tmp_path / "taken", b"new")
    assert caught.value.errno in (errno.EISDIR, errno.ENOTEMPTY)
    assert names(tmp_path) == ["taken"]
    assert (tmp_path / "taken/old").read_bytes() == b"old"


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        write_atomically(tmp_path / "file/c.bin", b"x")


def test_folders_are_created_only_within_an_existing_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with pytest.raises(FileNotFoundError):
        write_atomically(root / "a/c.bin", b"x", root / "partial", within=root)
    assert names(tmp_path) == []
    root.mkdir()
    write_atomically(root / "a/b/c.bin", b"x", root / "partial", within=root)
    assert (root / "a/b/c.bin").read_bytes() == b"x"


def test_a_file_written_in_parts_appears_when_it_is_complete(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "c.bin") as file:
        for part in range(200):
            file.write(bytes([part]) * 1000)
        assert not (tmp_path / "c.bin").exists()
    assert (tmp_path / "c.bin").read_bytes() == b"".join(bytes([part]) * 1000 for part in range(200))
    assert names(tmp_path) == ["c.bin"]


def test_an_abandoned_write_keeps_the_existing_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "c.bin", b"old")

    def give_up() -> None:
        with atomic_file(tmp_path / "c.bin") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert names(tmp_path) == ["c.bin"]
    assert (tmp_path / "c.bin").read_bytes() == b"old"


def test_processes_with_equal_ids_do_not_share_temporary_names(tmp_path: Path) -> None:
    """In containers every worker may be process 1 and number its files from 0."""
    code = """
import os, sys
from pathlib import Path
from engine.system.files import atomic_file
os.getpid = lambda: 1
with atomic_file(Path(sys.argv[1])):
    print(os.listdir(Path(sys.argv[1]).parent))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "c")]
    unfinished = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2)]
    assert unfinished[0] != unfinished[1]


def test_readers_see_one_complete_version_while_many_processes_write(tmp_path: Path) -> None:
    target = tmp_path / "c.bin"
    versions = [bytes([i]) * 100_000 for i in range(8)]
    write_atomically(target, versions[0])
    with ThreadPoolExecutor(4) as pool:
        writes = [pool.submit(write_atomically, target, version) for version in versions * 4]
        seen = [target.read_bytes() for _ in range(50)]
        for write in writes:
            write.result()
    assert set(seen) <= set(versions)
    assert names(tmp_path) == ["c.bin"]


def test_the_time_of_last_change_can_be_set(tmp_path: Path) -> None:
    write_atomically(tmp_path / "c.bin", b"x", modified_ns=1_500_000_000_123_456_789)
    assert (tmp_path / "c.bin").stat().st_mtime_ns == 1_500_000_000_123_456_789


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a root folder in which `way` leads to a folder beside it."""
    (tmp_path / "root/sub").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "root/way").symlink_to(tmp_path / "other")
    (tmp_path / "root/sub/way").symlink_to(tmp_path / "root/sub")
    return tmp_path / "root"


@pytest.mark.parametrize("folder", ["way", "way/deep", "sub/way", "sub/way/deep"])
def test_no_link_below_a_root_is_followed(root: Path, folder: str) -> None:
    with pytest.raises(LinkNotFollowed, match="way is a symbolic link"):
        write_atomically(root / folder / "c.bin", b"x", root / "partial", within=root)
    with pytest.raises(LinkNotFollowed):
        write_atomically(root / "c.bin", b"x", root / folder, within=root)
    with pytest.raises(LinkNotFollowed), folder_within(root, root / folder, make=True):
        pass
    assert names(root.parent / "other") == []
    assert names(root / "sub") == ["way"]
    assert not (root / "c.bin").exists()


def test_a_root_may_be_reached_through_a_link(root: Path) -> None:
    (root.parent / "current").symlink_to(root)
    current = root.parent / "current"
    write_atomically(current / "a/c.bin", b"x", current / "partial", within=current)
    assert (root / "a/c.bin").read_bytes() == b"x"


@pytest.mark.parametrize("path", ["../c.bin", "sub/../../c.bin"])
def test_a_path_that_leaves_its_root_is_an_error(root: Path, path: str) -> None:
    with pytest.raises(ValueError, match="root"):
        write_atomically(root / path, b"x", within=root)
    assert names(root.parent) == ["other", "root"]


def test_a_root_may_be_relative(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    write_atomically(Path("a/c.bin"), b"x", Path("partial"), within=Path())
    assert (root / "a/c.bin").read_bytes() == b"x"


def test_only_regular_files_are_opened(root: Path) -> None:
    (root / "way/c.bin").write_bytes(b"precious")
    (root / "link").symlink_to(root / "way/c.bin")
    os.mkfifo(root / "pipe")
    for name, error in (("link", LinkNotFollowed), ("way/c.bin", LinkNotFollowed), ("sub", OSError), ("pipe", OSError)):
        with pytest.raises(error):
            os.close(open_within(root, root / name, os.O_RDWR))
    descriptor = open_within(root, root / "new/c.bin", os.O_RDWR | os.O_CREAT, make=True)
    os.write(descriptor, b"x")
    os.close(descriptor)
    assert (root / "new/c.bin").read_bytes() == b"x"
    assert (root / "way/c.bin").read_bytes() == b"precious"


def test_no_file_is_written_through_a_link_that_replaces_a_folder_during_the_write(root: Path) -> None:
    """The folder is replaced by a link, and the link removed, over and over while files are written to it."""
    outside = root.parent / "other"
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(_write_many, root)
        swaps = 0
        while not writing.done():
            with contextlib.suppress(OSError):  # the writer has just created the folder again, or not yet
                (root / "swap").rename(root / f"aside-{swaps}")
                swaps += 1
                (root / "swap").symlink_to(outside)
                (root / "swap").unlink()
        written, refused = writing.result()
    assert written + refused == 300
    assert swaps > 0
    assert names(outside) == []
    assert sum(path.is_file() for path in root.rglob("*/[0-9]*")) == written


def _write_many(root: Path) -> tuple[int, int]:
    written = refused = 0
    for i in range(300):
        try:
            write_atomically(root / f"swap/{i}", b"x", root / "partial", within=root, durable=False)
            written += 1
        except (LinkNotFollowed, FileNotFoundError, FileExistsError):
            refused += 1
    return written, refused


def test_open_folders_create_a_deleted_folder_again(root: Path) -> None:
    with OpenFolders(root) as folders, OpenFolders(root) as targets:
        UnfinishedFile("new/a.jpg", b"a", "partial", folders).finish(targets)
        shutil.rmtree(root / "partial")
        UnfinishedFile("new/b.jpg", b"b", "partial", folders).finish(targets)
    assert {path.name: path.read_bytes() for path in (root / "new").iterdir()} == {"a.jpg": b"a", "b.jpg": b"b"}
    assert not list((root / "partial").iterdir())


def test_open_folders_follow_no_link_and_are_all_closed(root: Path) -> None:
    num_before = len(list(Path("/proc/self/fd").iterdir()))
    with OpenFolders(root) as folders:
        first = folders.descriptor("a/b")
        assert folders.descriptor("a/b") == first
        assert folders.descriptor("a/b", deleted=first) != first
        with pytest.raises(LinkNotFollowed):
            folders.descriptor("way/c")
        with pytest.raises(ValueError, match=r"\.\."):
            folders.descriptor("../c")
    assert len(list(Path("/proc/self/fd").iterdir())) == num_before


def test_an_unfinished_file_whose_target_is_a_folder_is_deleted(root: Path) -> None:
    (root / "a.jpg").mkdir()
    with OpenFolders(root) as folders:
        file = UnfinishedFile("a.jpg", b"a", "", folders)
        with pytest.raises(IsADirectoryError):
            file.finish(folders)
    assert [path.name for path in root.iterdir() if path.is_file()] == []
