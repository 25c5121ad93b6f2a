"""The manifest: durable, locked, and an error when it cannot be written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from engine.archive import manifest as manifest_module
from engine.archive.manifest import FOLDER, Manifest, ManifestEntry
from engine.errors import SetupError, StopRun

DONE = ManifestEntry(
    key="a.jpg", identity="1-2", recipe="r", output="a.png", num_bytes=9, notes=("first of 3 frames", "x")
)
FAILED = ManifestEntry(key="b.jpg", identity="3-4", recipe="r", stage="decode", error="torn")


def database(dst: Path) -> sqlite3.Connection:
    return sqlite3.connect(dst / FOLDER / "manifest.sqlite")


def test_what_one_run_records_the_next_one_finds(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.start_run("{}", "r")
        assert manifest.find("a.jpg") is None
        manifest.record(DONE)
        manifest.record(FAILED)
    with Manifest(tmp_path) as manifest:
        manifest.start_run("{}", "r")
        found = manifest.find("a.jpg")
        assert found is not None
        assert (found.state, found.identity, found.output, found.num_bytes) == ("done", "1-2", "a.png", 9)
        failed = manifest.find("b.jpg")
        assert failed is not None
        assert (failed.state, failed.stage, failed.error) == ("failed", "decode", "torn")


def test_an_input_has_one_entry_the_latest(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.start_run("{}", "r")
        manifest.record(FAILED)
        manifest.record(ManifestEntry(key="b.jpg", identity="3-4", recipe="r", output="b.jpg", num_bytes=1))
        manifest.commit()
        found = manifest.find("b.jpg")
        assert found is not None
        assert found.state == "done"
        assert list(manifest.failures()) == []


def test_failures_are_those_of_this_run(tmp_path: Path) -> None:
    for key in ("old.jpg", "new.jpg"):
        with Manifest(tmp_path) as manifest:
            manifest.start_run("{}", "r")
            manifest.record(ManifestEntry(key=key, identity="", recipe="r", stage="read", error=f"{key} is bad"))
            manifest.commit()
            assert list(manifest.failures()) == [(key, "read", f"{key} is bad")]


def test_runs_are_numbered_and_the_first_ones_start_is_kept(tmp_path: Path) -> None:
    starts = []
    for number in (1, 2, 3):
        with Manifest(tmp_path) as manifest:
            manifest.start_run('{"size": "256"}', "r")
            assert manifest.run == number
            starts.append(manifest.earlier_runs().created_s)
    assert len(set(starts)) == 1
    with database(tmp_path) as connection:
        assert connection.execute("SELECT DISTINCT settings, recipe FROM run").fetchall() == [('{"size": "256"}', "r")]


def test_entries_are_committed_while_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "_COMMIT_EVERY_S", 0.0)
    with Manifest(tmp_path) as manifest:
        manifest.start_run("{}", "r")
        manifest.record(DONE)
        with database(tmp_path) as other:
            assert other.execute("SELECT key, notes FROM image").fetchall() == [("a.jpg", "first of 3 frames\nx")]


def test_entries_survive_a_run_that_ends_in_an_error(tmp_path: Path) -> None:
    def breaks() -> None:
        with Manifest(tmp_path) as manifest:
            manifest.start_run("{}", "r")
            manifest.record(DONE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    with Manifest(tmp_path) as manifest:
        assert manifest.find("a.jpg") is not None


def test_a_second_run_on_one_folder_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with Manifest(tmp_path), pytest.raises(SetupError, match="Another run is writing"):
        Manifest(tmp_path).__enter__()
    with Manifest(tmp_path):
        pass


def test_the_lock_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    script = "import sys, os; from pathlib import Path; from engine.archive.manifest import Manifest\n"
    script += "Manifest(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=os.environ).returncode == -9
    with Manifest(tmp_path) as manifest:
        manifest.start_run("{}", "r")


def test_a_folder_that_cannot_be_created_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="Cannot write to"):
        Manifest(tmp_path / "file/dst").__enter__()


@pytest.mark.parametrize("content", [b"this is no database" * 100, None])
def test_a_manifest_that_cannot_be_used_is_one_sentence(content: bytes | None, tmp_path: Path) -> None:
    """Given a damaged manifest, or one of a later version, then the run does not start, and nothing stays locked."""
    path = tmp_path / FOLDER / "manifest.sqlite"
    path.parent.mkdir()
    if content is None:
        with database(tmp_path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    else:
        path.write_bytes(content)
    for _ in range(2):
        with pytest.raises(SetupError, match=r"cannot be used .*; move it away"):
            Manifest(tmp_path).__enter__()


def test_a_database_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    def broken() -> None:
        with Manifest(tmp_path) as manifest:
            manifest.start_run("{}", "r")
            with database(tmp_path) as other:
                other.execute("DROP TABLE image")
            manifest.record(DONE)

    with pytest.raises(StopRun, match="cannot be used any more"):
        broken()


def test_a_snapshot_is_a_whole_database(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.start_run("{}", "r")
        manifest.record(DONE)
        manifest.commit()
        manifest.snapshot(tmp_path / "copy.sqlite")
    with sqlite3.connect(tmp_path / "copy.sqlite") as copy:
        assert copy.execute("SELECT key FROM image").fetchall() == [("a.jpg",)]
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy.close()


def test_remarks_are_the_notes_on_results_of_this_run(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.start_run("{}", "r")
        manifest.record(DONE)
        manifest.record(FAILED)
        manifest.commit()
        assert list(manifest.remarks()) == [("a.jpg", ("first of 3 frames", "x"))]


@pytest.mark.parametrize("name", ["lock", "manifest.sqlite", "manifest.sqlite-wal", "manifest.sqlite-shm"])
def test_a_planted_link_to_a_file_is_refused_and_its_target_unchanged(name: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (tmp_path / "dst" / FOLDER).mkdir(parents=True)
    (tmp_path / "dst" / FOLDER / name).symlink_to(precious)
    with pytest.raises(SetupError, match=f"{name} is a symbolic link"), Manifest(tmp_path / "dst"):
        pass
    assert precious.read_bytes() == b"precious"


def test_a_planted_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "dst").mkdir()
    (tmp_path / "dst" / FOLDER).symlink_to(tmp_path / "other")
    with pytest.raises(SetupError, match="symbolic link"), Manifest(tmp_path / "dst"):
        pass
    assert list((tmp_path / "other").iterdir()) == []


def test_a_lock_file_keeps_what_is_in_it(tmp_path: Path) -> None:
    """Another name of the same file, a hard link, must not be truncated either."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / FOLDER / "lock").hardlink_to(tmp_path / "precious")
    with Manifest(tmp_path):
        pass
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("most_held", [0, 2])
def test_entries_are_the_same_whether_read_at_once_or_one_by_one(
    most_held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_module, "_MOST_HELD", most_held)
    with Manifest(tmp_path) as manifest:
        manifest.start_run("{}", "r")
        manifest.record(DONE)
        manifest.record(FAILED)
    with Manifest(tmp_path) as manifest:
        entries = manifest.earlier_runs().entries
        assert (entries["a.jpg"], entries.get("b.jpg"), entries.get("c.jpg")) == (DONE, FAILED, None)
        assert entries.get("\udce4.jpg") is None
        assert list(entries) == ["a.jpg", "b.jpg"]
