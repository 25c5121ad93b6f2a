"""Memory for the images of jobs, from their read to the end of their job.

Many threads read at the same time, and each image may have `--max-bytes`. Half of the memory is divided among the
threads: an image that fits into such a part is read at once. Larger ones share the other half, first come, first
served; one that is larger than that is read alone. They wait without a thread, and hold back no smaller one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import SkipImage
from engine.stream.jobs import JobState


class NeedsMemory(Exception):
    """An image is larger than what may be read now: it has `num_bytes`, or at most that many."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__(num_bytes)
        self.num_bytes = num_bytes


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How large an image may be."""

    max_bytes: int
    """At most, or it is refused."""
    now_bytes: int | None = None
    """At most for this read; None for no other limit."""

    @property
    def most(self) -> int:
        """The lower limit."""
        return self.max_bytes if self.now_bytes is None else min(self.max_bytes, self.now_bytes)

    def admit(self, num_bytes: int) -> None:
        """Raise `SkipImage` or `NeedsMemory` if an image of `num_bytes` is too large."""
        if num_bytes > self.max_bytes:
            raise SkipImage(f"source has {num_bytes:,} bytes, over the limit of {self.max_bytes:,} (--max-bytes)")
        if num_bytes > self.most:
            raise NeedsMemory(num_bytes)

    def checked(self, data: bytes) -> bytes:
        """Return `data`, read up to one byte more than `most`; raises as `admit` does where its size was not known."""
        if len(data) > self.most:
            self.admit(max(len(data), self.max_bytes) if self.most < self.max_bytes else len(data))
        return data


class ReadMemory:
    """Large images in memory, and the jobs whose images wait to be read; thread-safe."""

    def __init__(self, total_bytes: int, threads: int) -> None:
        self.small_bytes = total_bytes // 2 // threads
        """What each thread may read without asking."""
        self._limit = total_bytes // 2
        self._lock = threading.Lock()
        self._held: dict[int, int] = {}  # bytes by id() of the job
        self._waiting: deque[JobState] = deque()
        self._called: set[int] = set()  # id() of jobs that have waited and need not wait behind others again

    def enter(self, job: JobState, before_waiting: Callable[[JobState], object]) -> bool:
        """Take `job.needs_bytes`, or let `job` wait until `leave` or `ready` returns it; return whether it may read.

        `before_waiting` is called with a job that has to wait, before another thread may get it.
        """
        with self._lock:
            if (not self._waiting or id(job) in self._called) and self._fits(job):
                self._called.discard(id(job))
                self._held[id(job)] = job.needs_bytes
                return True
            before_waiting(job)
            self._waiting.append(job)
            return False

    def leave(self, job: JobState) -> list[JobState]:
        """Give back what `job` holds, if anything; return the job that should try to read now, if there is one."""
        with self._lock:
            return [] if self._held.pop(id(job), None) is None else self._ready()

    def ready(self) -> list[JobState]:
        """Return a waiting job as `leave` does; to be called now and then, since one that was returned may be lost."""
        with self._lock:
            return self._ready()

    def _ready(self) -> list[JobState]:
        if not self._waiting or not self._fits(self._waiting[0]):
            return []
        job = self._waiting.popleft()
        self._called.add(id(job))
        return [job]

    def _fits(self, job: JobState) -> bool:
        return not self._held or sum(self._held.values()) + job.needs_bytes <= self._limit
