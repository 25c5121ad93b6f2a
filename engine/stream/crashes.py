"""Count how often a job was in progress when a worker crashed, so that no image can kill workers without end.

Every worker appends to a journal of its own which jobs it has begun and ended, and holds a lock on it that the kernel
releases when the process dies. A journal without a lock belongs to a crashed worker: the jobs that it had begun and not
ended are suspects. Journals are in a folder that all workers of a group share, beside the receipts, or in the cache
folder of the machine where results go elsewhere. They survive a crash of the process, not one of the machine.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.stream.jobs import Message

log = logging.getLogger(__name__)

_KEEP_S = 7 * 24 * 3600.0  # a journal of this age is about jobs that the topic has probably deleted
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Suspicion:
    """What is known of a job that was in progress when a worker crashed."""

    crashes: int = 0
    """Workers that crashed while it was in progress."""
    alone: bool = False
    """It was the only one in progress in one of them."""


INNOCENT = Suspicion()


class CrashJournal:
    """The jobs that this worker has begun and not ended, and those of crashed workers. Safe for several threads."""

    def __init__(self, folder: Path) -> None:
        """Begin a journal in `folder` and read those of crashed workers; without a writable folder, count nothing."""
        self._folder = folder
        self._name = f"{secrets.token_hex(8)}.begun"
        self._lock = threading.Lock()
        self._begun: dict[str, bool] = {}
        self._num_bytes = 0
        self._suspicions: dict[str, Suspicion] = {}
        self._descriptor: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(folder / self._name, flags, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except OSError as error:
            log.warning("Crashes are not counted, because %s cannot be written: %s", folder, error.strerror)
        self.refresh()

    def refresh(self) -> None:
        """Read the journals of workers that have crashed since; to be called when partitions are assigned."""
        suspicions: dict[str, Suspicion] = {}
        for path in self._folder.glob("*.begun"):
            if path.name == self._name:
                continue
            with suppress(OSError):
                for job, alone in _left_by_a_crash(path).items():
                    before = suspicions.get(job, INNOCENT)
                    suspicions[job] = Suspicion(before.crashes + 1, before.alone or alone)
        with self._lock:
            self._suspicions = suspicions

    def suspicion(self, message: Message) -> Suspicion:
        """Return what is known of the job in `message`."""
        with self._lock:
            return self._suspicions.get(_key(message), INNOCENT)

    def begin(self, message: Message, *, alone: bool = False) -> None:
        """Note that the job is in progress from now on; `alone` if no other is."""
        with self._lock:
            self._begun[_key(message)] = alone
            self._append(f"{'!' if alone else '+'}{_key(message)}\n")

    def end(self, message: Message) -> None:
        """Note that the job has ended, or is left to another worker."""
        with self._lock:
            if self._begun.pop(_key(message), None) is not None:
                self._append(f"-{_key(message)}\n")

    def close(self) -> None:
        """Delete the journal: this worker has not crashed."""
        with self._lock:
            if self._descriptor is not None:
                with suppress(OSError):
                    (self._folder / self._name).unlink()
                os.close(self._descriptor)
                self._descriptor = None

    def _append(self, line: str) -> None:
        if self._descriptor is None:
            return
        with suppress(OSError):  # a full disk stops the worker where results are stored, not here
            if self._num_bytes > _MAX_BYTES:
                line = "".join(f"{'!' if alone else '+'}{key}\n" for key, alone in self._begun.items())
                os.ftruncate(self._descriptor, 0)
                self._num_bytes = 0
            self._num_bytes += os.write(self._descriptor, line.encode())


def _key(message: Message) -> str:
    """Identify a message; with its time stamp, since a topic that was created anew starts its offsets again."""
    return f"{message.topic}/{message.partition}/{message.offset}/{int(message.timestamp_s * 1000)}"


def _left_by_a_crash(path: Path) -> dict[str, bool]:
    """Return the jobs in a crashed worker's journal and whether each was alone; raises `OSError` for a live one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        data = os.read(descriptor, 2 * _MAX_BYTES).decode("utf-8", "replace")
        begun: dict[str, bool] = {}
        for line in data.split("\n")[:-1]:  # a line that a crash cut has no end
            if line[:1] in ("+", "!"):
                begun[line[1:]] = line[0] == "!"
            else:
                begun.pop(line[1:], None)
        if not begun or time.time() - os.fstat(descriptor).st_mtime > _KEEP_S:
            path.unlink(missing_ok=True)
            return {}
        return begun
    finally:
        os.close(descriptor)
