"""Shares of the reading threads, so that no server can hold all of them.

A server that sends its images a byte at a time holds each thread until `--read-timeout`. Each origin (a server, bucket
or input root) may begin another read only while it has fewer reads than there are free threads: dynamic thresholds, as
in switches that share a buffer (Choudhury and Hahne, 1998). One slow origin gets half of the threads, two a third each,
and some always stay free for others. Jobs above the share wait without a thread.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

from engine.stream.jobs import JobState


class ReadShares:
    """Reads in progress by origin, and the jobs that wait for their turn; thread-safe."""

    def __init__(self, threads: int) -> None:
        self._free = threads
        self._lock = threading.Lock()
        self._reads: Counter[str] = Counter()
        self._waiting: dict[str, deque[JobState]] = {}

    def enter(self, origin: str, job: JobState, before_waiting: Callable[[JobState], object]) -> bool:
        """Begin a read from `origin`, or let `job` wait until `leave` or `ready` returns it; return whether it begins.

        `before_waiting` is called with a job that has to wait, before another thread may get it.
        """
        with self._lock:
            if self._may_begin(origin):
                self._free -= 1
                self._reads[origin] += 1
                return True
            before_waiting(job)
            self._waiting.setdefault(origin, deque()).append(job)
            return False

    def leave(self, origin: str) -> list[JobState]:
        """End a read from `origin`; return the jobs that should try to begin now, at most one of each origin."""
        with self._lock:
            self._free += 1
            self._reads[origin] -= 1
            if not self._reads[origin]:
                del self._reads[origin]
            return self._ready()

    def ready(self) -> list[JobState]:
        """Return waiting jobs as `leave` does; to be called now and then, since a job that was returned may be lost."""
        with self._lock:
            return self._ready()

    def _ready(self) -> list[JobState]:
        origins = [origin for origin in self._waiting if self._may_begin(origin)]
        jobs = [self._waiting[origin].popleft() for origin in origins]
        self._waiting = {origin: waiting for origin, waiting in self._waiting.items() if waiting}
        return jobs

    def _may_begin(self, origin: str) -> bool:
        return self._reads[origin] < self._free
