"""Count jobs that were in progress when a worker crashed; running and stopped workers do not count."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.stream.crashes import INNOCENT, CrashJournal, Suspicion
from engine.stream.jobs import Message
from tests import ROOT

SCRIPT = """
import os, signal, sys
from pathlib import Path
from engine.stream.crashes import CrashJournal
from engine.stream.jobs import Message
journal = CrashJournal(Path(sys.argv[1]))
for word in sys.argv[2:]:
    message = Message("jobs", 0, int(word[1:]), 1.0, None, b"")
    if word[0] == "-":
        journal.end(message)
    else:
        journal.begin(message, alone=word[0] == "!")
os.kill(os.getpid(), signal.SIGKILL)
"""


def message(offset: int, timestamp_s: float = 1.0) -> Message:
    return Message("jobs", 0, offset, timestamp_s, None, b"")


def crash(folder: Path, *words: str) -> None:
    """Begin (+), begin alone (!) and end (-) jobs in a process, and then kill it."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder), *words], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL


def test_jobs_in_progress_at_a_crash_are_counted_across_processes(tmp_path: Path) -> None:
    crash(tmp_path, "+1", "+2", "-1", "+3")
    crash(tmp_path, "+2", "!4")
    journal = CrashJournal(tmp_path)
    found = [journal.suspicion(message(offset)) for offset in range(1, 5)]
    assert found == [INNOCENT, Suspicion(2), Suspicion(1), Suspicion(1, alone=True)]
    assert journal.suspicion(message(2, timestamp_s=2.0)) == INNOCENT, "of a topic that was created anew"


def test_running_and_stopped_workers_are_not_counted(tmp_path: Path) -> None:
    alive, left = CrashJournal(tmp_path), CrashJournal(tmp_path)
    alive.begin(message(1))
    left.begin(message(2))
    left.close()
    journal = CrashJournal(tmp_path)
    assert [journal.suspicion(message(offset)) for offset in (1, 2)] == [INNOCENT, INNOCENT]
    alive.close()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_was_already_running_counts_a_crash(tmp_path: Path) -> None:
    journal = CrashJournal(tmp_path)
    crash(tmp_path, "+1")
    assert journal.suspicion(message(1)) == INNOCENT
    journal.refresh()
    assert journal.suspicion(message(1)) == Suspicion(1)


def test_the_journal_of_a_long_run_stays_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.stream.crashes._MAX_BYTES", 1000)
    journal = CrashJournal(tmp_path)
    journal.begin(message(0))
    for offset in range(1, 1000):
        journal.begin(message(offset))
        journal.end(message(offset))
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size < 2000
    assert journal._descriptor is not None
    os.close(journal._descriptor)  # as a crash does
    assert CrashJournal(tmp_path).suspicion(message(0)) == Suspicion(1)


def test_damaged_lines_and_old_journals_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "cut.begun").write_bytes(b"+jobs/0/1/1000\n+jobs/0/2/10")
    (tmp_path / "noise.begun").write_bytes(bytes(range(256)))
    (tmp_path / "old.begun").write_bytes(b"+jobs/0/3/1000\n")
    os.utime(tmp_path / "old.begun", (0, 0))
    journal = CrashJournal(tmp_path)
    assert [journal.suspicion(message(offset)).crashes for offset in (1, 2, 3)] == [1, 0, 0]


def test_without_a_writable_folder_no_crash_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    journal = CrashJournal(tmp_path / "file")
    journal.begin(message(1))
    journal.end(message(1))
    assert journal.suspicion(message(1)) == INNOCENT
    journal.close()
