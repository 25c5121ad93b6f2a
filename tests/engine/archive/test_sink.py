"""Results in a folder: whole or absent, and the end of the run when the folder is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.archive.sink import ArchiveSink
from engine.errors import SkipImage, StopRun
from engine.options import Options
from engine.records import Encoded, Failed, Origin, Outcome, Record, Stored
from tests import ROOT
from tests.faults.campaign.mounts import without_override


def record(output: str, data: bytes = b"image", modified_ns: int | None = None) -> Record[Encoded]:
    encoded = Encoded(data=data, format="PNG", width=3, height=2)
    return Record(key=output, payload=encoded, options=Options(), origin=Origin(output=output, modified_ns=modified_ns))


def stored_by(sink: ArchiveSink, record: Record[Encoded]) -> Stored:
    """Store and settle one result; raise its failure as `SkipImage`."""
    (outcome,) = sink.settle([record.replace(sink.store(record))])
    if isinstance(outcome, Failed):
        raise SkipImage(outcome.reason)
    return outcome.payload


def test_a_result_is_stored_in_its_folder_and_found(tmp_path: Path) -> None:
    sink = ArchiveSink(tmp_path, tmp_path / ".solstice/partial")
    assert sink.find("a/b.png") is None
    stored = stored_by(sink, record("a/b.png"))
    assert (stored.location, stored.num_bytes) == ("a/b.png", 5)
    assert (tmp_path / "a/b.png").read_bytes() == b"image"
    found = sink.find("a/b.png")
    assert found is not None
    assert found.num_bytes == 5
    info = (tmp_path / "a/b.png").stat()
    assert found.file_id == (info.st_dev, info.st_ino)
    assert list((tmp_path / ".solstice/partial").iterdir()) == []


def test_a_name_that_cannot_be_written_fails_alone(tmp_path: Path) -> None:
    """A folder or a file stands in the way, or the name is too long for the file system."""
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    sink = ArchiveSink(tmp_path, tmp_path / "partial")
    for output in ("folder.png", "file/a.png", "x" * 300 + ".png"):
        with pytest.raises(SkipImage, match="cannot be written: "):
            stored_by(sink, record(output))
    stored_by(sink, record("a.png"))
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_deleted_folder_stops_the_run_and_is_not_created_again(tmp_path: Path) -> None:
    root = tmp_path / "dst"
    root.mkdir()
    sink = ArchiveSink(root)
    stored_by(sink, record("a.png"))
    shutil.rmtree(root)
    with pytest.raises(StopRun, match="is gone"):
        stored_by(sink, record("b.png"))
    assert not root.exists()


@pytest.mark.skipif(without_override() is None, reason="this user writes into every folder")
def test_the_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "a/closed"
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    code = (
        "import sys\nfrom pathlib import Path\nfrom engine.errors import StopRun\n"
        "from tests.engine.archive.test_sink import ArchiveSink, record, stored_by\n"
        "try:\n    stored_by(ArchiveSink(Path(sys.argv[1])), record('a/closed/b.png'))\n"
        "except StopRun as error:\n    print(error)"
    )
    command = [*(without_override() or []), sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f'Cannot write to "{folder}": Permission denied; '), done.stderr


def test_times_are_kept_with_keep_times(tmp_path: Path) -> None:
    then_ns = 1_400_000_000_000_000_000
    stored_by(ArchiveSink(tmp_path, keep_times=True), record("kept.png", modified_ns=then_ns))
    stored_by(ArchiveSink(tmp_path), record("new.png", modified_ns=then_ns))
    assert (tmp_path / "kept.png").stat().st_mtime_ns == then_ns
    assert (tmp_path / "new.png").stat().st_mtime_ns > then_ns
    found = ArchiveSink(tmp_path).find("kept.png")
    assert found is not None
    assert found.changed_s is not None
    assert found.changed_s * 1e9 > then_ns, "the time of creation distinguishes results from older files"


def test_a_link_is_found_as_itself(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to("nowhere")
    assert ArchiveSink(tmp_path).find("link.png") is not None
    assert os.path.lexists(tmp_path / "link.png")


def test_a_linked_folder_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "dst").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "dst/way").symlink_to(tmp_path / "other")
    sink = ArchiveSink(tmp_path / "dst", tmp_path / "dst/.solstice/partial")
    for output in ("way/a.png", "way/deep/a.png"):
        with pytest.raises(SkipImage, match="cannot be written: way is a symbolic link"):
            stored_by(sink, record(output))
    assert list((tmp_path / "other").iterdir()) == []
    stored_by(sink, record("a.png"))


def test_a_group_is_on_disk_before_any_result_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut can leave: temporary files, or whole results; never a name with half a result."""
    sink = ArchiveSink(tmp_path, tmp_path / "partial")
    order: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def named(descriptor: int) -> str:
        return Path(f"/proc/self/fd/{descriptor}").readlink().name

    def noted_fsync(descriptor: int) -> None:
        order.append(("flushed", named(descriptor)))
        fsync(descriptor)

    def noted_replace(old: str, new: str, **folders: int) -> None:
        order.append(("renamed", old))
        replace(old, new, **folders)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    stored: list[Outcome] = [result.replace(sink.store(result)) for result in (record(f"{i}.png") for i in range(4))]
    assert [path.name for path in tmp_path.glob("*.png")] == []
    assert sink.settle(stored) == stored
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [f"{i}.png" for i in range(4)]
    assert len(order) == 8
    for what, name in order:
        if what == "renamed":
            assert order.index(("flushed", name)) < order.index(("renamed", name))


def test_one_failure_in_a_group_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "1.png").mkdir()
    sink = ArchiveSink(tmp_path, tmp_path / "partial")
    stored: list[Outcome] = [result.replace(sink.store(result)) for result in (record(f"{i}.png") for i in range(3))]
    first, second, third = sink.settle(stored)
    assert [first, third] == [stored[0], stored[2]]
    assert isinstance(second, Failed)
    assert (second.stage, second.key) == ("store", "1.png")
    assert second.reason.startswith("cannot be written: ")
    assert list((tmp_path / "partial").iterdir()) == []


def test_results_that_were_not_settled_are_deleted_at_the_end(tmp_path: Path) -> None:
    sink = ArchiveSink(tmp_path)
    sink.store(record("a.png"))
    assert len(list(tmp_path.iterdir())) == 1
    sink.close()
    assert list(tmp_path.iterdir()) == []
