"""A file is whole or not there."""

from __future__ import annotations

import errno
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.system.files import atomic_file, write_atomically


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_it_makes_folders_and_leaves_nothing_but_the_file(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a/b/c.bin", b"content")
    assert (tmp_path / "a/b/c.bin").read_bytes() == b"content"
    assert names(tmp_path / "a/b") == ["c.bin"]


def test_it_replaces_what_was_there(tmp_path: Path) -> None:
    for content in (b"old and longer", b"new", b""):
        write_atomically(tmp_path / "c.bin", content)
        assert (tmp_path / "c.bin").read_bytes() == content


def test_the_unfinished_file_lives_in_the_folder_named_for_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep/c.bin", b"x", tmp_path / "partial")
    assert (tmp_path / "deep/c.bin").read_bytes() == b"x"
    assert names(tmp_path / "partial") == []


def test_when_it_fails_the_old_file_stays_and_no_other_is_left(tmp_path: Path) -> None:
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


def test_only_folders_within_a_root_that_is_there_are_made(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with pytest.raises(FileNotFoundError):
        write_atomically(root / "a/c.bin", b"x", root / "partial", within=root)
    assert names(tmp_path) == []
    root.mkdir()
    write_atomically(root / "a/b/c.bin", b"x", root / "partial", within=root)
    assert (root / "a/b/c.bin").read_bytes() == b"x"


def test_a_file_written_in_parts_appears_when_it_is_whole(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "c.bin") as file:
        for part in range(200):
            file.write(bytes([part]) * 1000)
        assert not (tmp_path / "c.bin").exists()
    assert (tmp_path / "c.bin").read_bytes() == b"".join(bytes([part]) * 1000 for part in range(200))
    assert names(tmp_path) == ["c.bin"]


def test_a_writer_that_gives_up_leaves_what_was_there(tmp_path: Path) -> None:
    write_atomically(tmp_path / "c.bin", b"old")

    def give_up() -> None:
        with atomic_file(tmp_path / "c.bin") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert names(tmp_path) == ["c.bin"]
    assert (tmp_path / "c.bin").read_bytes() == b"old"


def test_processes_that_share_a_folder_and_a_number_do_not_meet(tmp_path: Path) -> None:
    """In containers every worker may be process 1, and count its files from 0."""
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


def test_readers_see_one_whole_version_while_many_write(tmp_path: Path) -> None:
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


def test_a_time_that_is_given_becomes_the_time_of_last_change(tmp_path: Path) -> None:
    write_atomically(tmp_path / "c.bin", b"x", modified_ns=1_500_000_000_123_456_789)
    assert (tmp_path / "c.bin").stat().st_mtime_ns == 1_500_000_000_123_456_789
