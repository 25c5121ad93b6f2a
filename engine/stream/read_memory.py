"""Memory for the images of jobs, from their read to the end of their job.

Many threads read at the same time, and each image may have `--max-bytes`. Half of the memory is divided among the
threads: an image that fits into such a part is read at once. Larger ones share the other half, first come, first
served; one that is larger than that is read alone. They wait without a thread, and hold back no smaller one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from engine.errors import SkipImage
from engine.stream.jobs import JobState


class NeedsMemory(Exception):
    """An image is larger than what may be read now: it has `num_bytes`, or at most that many."""

    def __init__(self, num_bytes: int) -> None:
        super().__init__(num_bytes)
        self.num_bytes = num_bytes


class ReadLimits:
    """How large an image may be, for one read of it."""

    def __init__(
        self, max_bytes: int, now_bytes: int | None = None, more: Callable[[int], bool] = lambda _num_bytes: False
    ) -> None:
        """Refuse an image of more than `max_bytes`; read more than `now_bytes` only where `more` permits it.

        `more` is called with the bytes that the image needs in all, and returns at once. None is no limit for now.
        """
        self.max_bytes = max_bytes
        self.most = max_bytes if now_bytes is None else min(max_bytes, now_bytes)
        """Bytes that may be read now; grows when `more` permits it."""
        self._more = more

    def admit(self, num_bytes: int) -> None:
        """Permit an image of `num_bytes`; raises `SkipImage` if it is too large, `NeedsMemory` if it has to wait."""
        if num_bytes > self.max_bytes:
            raise SkipImage(f"source has {num_bytes:,} bytes, over the limit of {self.max_bytes:,} (--max-bytes)")
        if num_bytes > self.most:
            if not self._more(num_bytes):
                raise NeedsMemory(num_bytes)
            self.most = num_bytes

    def admit_so_far(self, num_bytes: int) -> None:
        """Do the same for an image of unknown size, of which `num_bytes` have been read: it may need `max_bytes`."""
        if num_bytes > self.most:
            self.admit(max(num_bytes, self.max_bytes) if self.most < self.max_bytes else num_bytes)


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
            if self._take(job, job.needs_bytes):
                return True
            before_waiting(job)
            self._waiting.append(job)
            return False

    def take(self, job: JobState, num_bytes: int) -> bool:
        """Take `num_bytes` for `job`, in place of what it holds, if they are free and no other job waits for them."""
        with self._lock:
            return self._take(job, num_bytes)

    def keep(self, job: JobState, num_bytes: int) -> list[JobState]:
        """Give back what `job` holds over `num_bytes`, those that were read; return what `leave` returns."""
        with self._lock:
            if self._held.get(id(job), 0) <= num_bytes:
                return []
            self._held[id(job)] = num_bytes
            return self._ready()

    def leave(self, job: JobState) -> list[JobState]:
        """Give back what `job` holds, if anything; return the job that should try to read now, if there is one."""
        with self._lock:
            return [] if self._held.pop(id(job), None) is None else self._ready()

    def ready(self) -> list[JobState]:
        """Return a waiting job as `leave` does; to be called now and then, since one that was returned may be lost."""
        with self._lock:
            return self._ready()

    def _ready(self) -> list[JobState]:
        if not self._waiting or not self._fits(self._waiting[0], self._waiting[0].needs_bytes):
            return []
        job = self._waiting.popleft()
        self._called.add(id(job))
        return [job]

    def _take(self, job: JobState, num_bytes: int) -> bool:
        if (self._waiting and id(job) not in self._called) or not self._fits(job, num_bytes):
            return False
        self._called.discard(id(job))
        self._held[id(job)] = num_bytes
        return True

    def _fits(self, job: JobState, num_bytes: int) -> bool:
        held_by_others = sum(self._held.values()) - self._held.get(id(job), 0)
        return not held_by_others or held_by_others + num_bytes <= self._limit
