"""Jobs whose input root does not answer: they wait outside the reading threads and are tried again.

A root that does not answer is told apart from an image that is missing or broken. The first makes its jobs wait, with
growing, jittered pauses, for as long as it takes; the second is a dead letter. A root that answers with an overload
status for one image while it serves others has a broken image, not an outage.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from engine.errors import SkipImage
from engine.observe.health import Health
from engine.observe.metrics import Metrics
from engine.stream.inputs import SourceUnavailable
from engine.stream.jobs import JobState
from engine.system.retry import ATTEMPTS, pauses_s

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 120.0

_CONDITION = "source"


@dataclass
class _Wait:
    """What is known of a job that waits for its root."""

    root: int
    pauses_s: Iterator[float]
    failed_s: float
    """Time of its last failed attempt."""
    num_refused: int = 0
    """Failed attempts before which the root served another image."""


@dataclass
class _Root:
    """What is known of one input root."""

    served_s: float = float("-inf")
    """Time of the last image that it served."""
    waiting: set[int] = field(default_factory=set)
    """Jobs that wait for it, by id()."""
    reason: str = ""


class WaitingJobs:
    """Jobs that wait for their input roots, and when to try them again; thread-safe."""

    def __init__(self, metrics: Metrics, health: Health, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._health = health
        self._clock = clock
        self._lock = threading.Lock()
        self._waits: dict[int, _Wait] = {}  # by id() of the job
        self._roots: dict[int, _Root] = {}
        self._heap: list[tuple[float, int, JobState]] = []  # due time, in the order of adding
        self._count = itertools.count()

    def add(self, job: JobState, error: SourceUnavailable) -> None:
        """Let `job` wait for the root of `error`; raises `SkipImage` when that root serves other images."""
        now_s = self._clock()
        with self._lock:
            root = self._roots.setdefault(error.root, _Root())
            wait = self._waits.get(id(job))
            if wait is None:
                wait = _Wait(error.root, pauses_s(FIRST_PAUSE_S, LONGEST_PAUSE_S), now_s)
                self._waits[id(job)] = wait
            elif root.served_s > wait.failed_s:
                wait.num_refused += 1
            wait.failed_s = now_s
            if wait.num_refused >= ATTEMPTS:
                self._forget(job)
                raise SkipImage(f"source cannot be read after {job.attempts} attempts: {error}")
            job.attempts += 1
            root.waiting.add(id(job))
            root.reason = str(error)
            heapq.heappush(self._heap, (now_s + next(wait.pauses_s), next(self._count), job))
            self._report(error.root)
        self._metrics.count("retries_total", 1.0, "read")
        log.warning("Input root %d does not answer; its jobs wait: %s", error.root, error)

    def take_due(self) -> JobState | None:
        """Return a job that is to be tried again now, or None."""
        with self._lock:
            if self._heap and self._heap[0][0] <= self._clock():
                return heapq.heappop(self._heap)[2]
            return None

    def due_in(self) -> float | None:
        """Return the seconds until the next job is due; None when no job waits."""
        with self._lock:
            return max(0.0, self._heap[0][0] - self._clock()) if self._heap else None

    def served(self, job: JobState, root: int) -> None:
        """Record that `root` served the image of `job`; its other jobs are tried again soon."""
        with self._lock:
            known = self._roots.setdefault(root, _Root())
            recovered = id(job) in known.waiting
            known.served_s = self._clock()
            self._forget(job)
            if recovered:
                self._hasten(root)

    def drop(self, job: JobState) -> None:
        """Forget a job that is no longer this worker's, or whose image turned out to be bad."""
        with self._lock:
            self._forget(job)

    def _hasten(self, root: int) -> None:
        """Make the waiting jobs of a root due within the shortest pause."""
        soon = pauses_s(FIRST_PAUSE_S, FIRST_PAUSE_S)
        latest_s = self._clock() + FIRST_PAUSE_S
        self._heap = [
            (min(due_s, self._clock() + next(soon)), n, job)
            if id(job) in self._roots[root].waiting and due_s > latest_s
            else (due_s, n, job)
            for due_s, n, job in self._heap
        ]
        heapq.heapify(self._heap)

    def _forget(self, job: JobState) -> None:
        wait = self._waits.pop(id(job), None)
        if wait is not None:
            self._roots[wait.root].waiting.discard(id(job))
            self._report(wait.root)

    def _report(self, root: int) -> None:
        self._metrics.gauge("source_up", 0.0 if self._roots[root].waiting else 1.0, str(root))
        away = {number: known.reason for number, known in sorted(self._roots.items()) if known.waiting}
        reason = "; ".join(f"input root {number} does not answer: {reason}" for number, reason in away.items())
        self._health.require(_CONDITION, not away, reason)
