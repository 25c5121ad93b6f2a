"""Count jobs that were in progress when a worker crashed; running and stopped workers do not count."""

from __future__ import annotations

import errno
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


def release(journal: CrashJournal) -> None:
    """Release a journal's lock without ending its jobs, as the kernel does after a crash."""
    assert journal._slots is not None
    assert journal._descriptor is not None
    journal._slots.close()
    os.close(journal._descriptor)


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


def test_the_journal_of_a_long_run_stays_short(tmp_path: Path) -> None:
    journal = CrashJournal(tmp_path)
    journal.begin(message(0))
    (path,) = tmp_path.iterdir()
    num_bytes = path.stat().st_size
    for offset in range(1, 2000):
        journal.begin(message(offset))
        journal.end(message(offset))
    assert path.stat().st_size == num_bytes
    assert path.stat().st_blocks * 512 >= num_bytes, "a write into a hole on a full disk would end the process"
    release(journal)
    assert CrashJournal(tmp_path).suspicion(message(0)) == Suspicion(1)


def test_any_number_of_jobs_is_in_progress(tmp_path: Path) -> None:
    crash(tmp_path, *(f"+{offset}" for offset in range(1500)), *(f"-{offset}" for offset in range(0, 1500, 2)), "!1501")
    journal = CrashJournal(tmp_path)
    counted = [journal.suspicion(message(offset)) for offset in range(1502)]
    assert [suspicion.crashes for suspicion in counted[:1500]] == [0, 1] * 750
    assert counted[1501] == Suspicion(1, alone=True)


def test_a_job_that_is_begun_again_is_in_the_journal_once(tmp_path: Path) -> None:
    journal = CrashJournal(tmp_path)
    journal.begin(message(1))
    journal.begin(message(1), alone=True)
    journal.end(message(1))
    release(journal)
    assert CrashJournal(tmp_path).suspicion(message(1)) == INNOCENT


def test_the_longest_name_of_a_topic_fits(tmp_path: Path) -> None:
    long = Message("t" * 249, 2**31 - 1, 2**63 - 1, 2.0**40, None, b"")
    journal = CrashJournal(tmp_path)
    journal.begin(long)
    release(journal)
    assert CrashJournal(tmp_path).suspicion(long) == Suspicion(1)


def test_damaged_and_old_journals_are_ignored(tmp_path: Path) -> None:
    def slot(line: bytes) -> bytes:
        return line.ljust(320, b"\0")

    (tmp_path / "cut.begun").write_bytes(slot(b"+jobs/0/1/1000\n") + slot(b"+jobs/0/2/10") + b"+jobs/0/4/1000\n")
    (tmp_path / "noise.begun").write_bytes(bytes(range(256)) * 3)
    (tmp_path / "old.begun").write_bytes(slot(b"+jobs/0/3/1000\n"))
    os.utime(tmp_path / "old.begun", (0, 0))
    journal = CrashJournal(tmp_path)
    assert [journal.suspicion(message(offset)).crashes for offset in (1, 2, 3, 4)] == [1, 0, 0, 1]


def test_a_full_disk_leaves_jobs_uncounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = CrashJournal(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("engine.stream.crashes.os.posix_fallocate", full)
    for offset in range(600):
        journal.begin(message(offset))
    journal.end(message(0))
    journal.begin(message(601))
    for offset in range(602):
        journal.end(message(offset))
    journal.close()
    assert list(tmp_path.iterdir()) == []
    with_none = CrashJournal(tmp_path)
    with_none.begin(message(1))
    with_none.end(message(1))
    assert list(tmp_path.iterdir()) == [], "no journal is left that counts nothing"


def test_without_a_writable_folder_no_crash_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    journal = CrashJournal(tmp_path / "file")
    journal.begin(message(1))
    journal.end(message(1))
    assert journal.suspicion(message(1)) == INNOCENT
    journal.close()
