"""Count how often a job was in progress when a worker crashed, so that no image can kill workers without end.

Every worker notes the jobs in progress in a journal of its own, and holds a lock on it that the kernel releases when
the process dies. A journal without a lock belongs to a crashed worker: the jobs in it are suspects. Journals are in a
folder that all workers of a group share, beside the receipts, or in the cache folder of the machine where results go
elsewhere. They survive a crash of the process, not one of the machine.

A journal is a file of slots that is mapped into memory: the kernel has what is written there at once, without a call
that gives up the interpreter's lock and waits to get it back, which took half a millisecond on a busy worker. A slot
is a mark (`+`, `!` for a job that is alone, NUL if it is free), then the job and a line feed. The mark is set last.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
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
_SLOT_BYTES = 320  # a topic has 249 characters at most
_SLOTS = 512
_MAX_BYTES = 1 << 26
_IN_PROGRESS, _ALONE, _FREE = ord("+"), ord("!"), 0


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
        self._suspicions: dict[str, Suspicion] = {}
        self._begun: dict[str, int] = {}  # slots by job
        self._free: list[int] = []
        self._slots: mmap.mmap | None = None
        self._descriptor: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(folder / self._name, flags, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self._slots = self._with_slots(self._descriptor, _SLOTS)
        except OSError as error:
            log.warning("Crashes are not counted, because %s cannot be written: %s", folder, error.strerror)
            self.close()
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
        self._suspicions = suspicions

    def suspicion(self, message: Message) -> Suspicion:
        """Return what is known of the job in `message`."""
        return self._suspicions.get(_key(message), INNOCENT)

    def begin(self, message: Message, *, alone: bool = False) -> None:
        """Note that the job is in progress from now on; `alone` if no other is."""
        key = _key(message)
        with self._lock:
            slot = self._slot_for(key)
            if slot is None or self._slots is None:
                return
            at, line = slot * _SLOT_BYTES, f"{key}\n".encode()
            self._slots[at + 1 : at + 1 + len(line)] = line
            self._slots[at] = _ALONE if alone else _IN_PROGRESS

    def end(self, message: Message) -> None:
        """Note that the job has ended, or is left to another worker."""
        key = _key(message)
        with self._lock:
            slot = self._begun.pop(key, None)
            if slot is not None and self._slots is not None:
                self._slots[slot * _SLOT_BYTES] = _FREE
                self._free.append(slot)

    def close(self) -> None:
        """Delete the journal: this worker has not crashed."""
        with self._lock:
            slots, self._slots = self._slots, None
            descriptor, self._descriptor = self._descriptor, None
        if slots is not None:
            slots.close()
        if descriptor is not None:
            with suppress(OSError):
                (self._folder / self._name).unlink()
            os.close(descriptor)

    def _slot_for(self, key: str) -> int | None:
        """Return the slot of a job, a free one if it has none; None if there is no room on the disk."""
        if key in self._begun:
            return self._begun[key]
        if not self._free and self._slots is not None and self._descriptor is not None:
            with suppress(OSError):  # a full disk stops the worker where results are stored, not here
                before, self._slots = (
                    self._slots,
                    self._with_slots(self._descriptor, 2 * len(self._slots) // _SLOT_BYTES),
                )
                before.close()
        if not self._free:
            return None
        slot = self._begun[key] = self._free.pop()
        return slot

    def _with_slots(self, descriptor: int, count: int) -> mmap.mmap:
        """Make the journal as long as `count` slots and map it; raises `OSError`.

        Its blocks are allocated now: where one is missing at a write to mapped memory, the kernel ends the process.
        """
        os.posix_fallocate(descriptor, 0, count * _SLOT_BYTES)
        slots = mmap.mmap(descriptor, count * _SLOT_BYTES)
        self._free += range(len(self._begun) + len(self._free), count)
        return slots


def _key(message: Message) -> str:
    """Identify a message; with its time stamp, since a topic that was created anew starts its offsets again."""
    return f"{message.topic}/{message.partition}/{message.offset}/{int(message.timestamp_s * 1000)}"


def _left_by_a_crash(path: Path) -> dict[str, bool]:
    """Return the jobs in a crashed worker's journal and whether each was alone; raises `OSError` for a live one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        begun = _jobs_in(os.read(descriptor, _MAX_BYTES))
        if not begun or time.time() - os.fstat(descriptor).st_mtime > _KEEP_S:
            path.unlink(missing_ok=True)
            return {}
        return begun
    finally:
        os.close(descriptor)


def _jobs_in(data: bytes) -> dict[str, bool]:
    """Return the jobs in a journal, and whether each was alone."""
    jobs: dict[str, bool] = {}
    for at in range(0, len(data), _SLOT_BYTES):
        line, end, _ = data[at + 1 : at + _SLOT_BYTES].partition(b"\n")
        if data[at] in (_IN_PROGRESS, _ALONE) and end:
            jobs[line.decode("utf-8", "replace")] = data[at] == _ALONE
    return jobs
