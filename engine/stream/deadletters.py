"""The limit that stops a broken deploy before it turns a whole topic into dead letters."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from engine.errors import StopRun


@dataclass(frozen=True, kw_only=True)
class DeadLetterLimit:
    """How many jobs may fail before the worker stops."""

    consecutive: int = 200
    """Failed jobs with no success between them."""
    ratio: float = 0.5
    """Failed jobs among the last `window`."""
    window: int = 1000


class DeadLetterGuard:
    """Counts outcomes against a limit; safe for several threads."""

    def __init__(self, limit: DeadLetterLimit) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._consecutive = 0
        self._recent: deque[bool] = deque(maxlen=limit.window)
        self._failed = 0

    def saw(self, failed: bool) -> None:
        """Count one outcome, before it is told to anyone; raises `StopRun` when the limit is passed."""
        with self._lock:
            if len(self._recent) == self._limit.window:
                self._failed -= self._recent[0]
            self._recent.append(failed)
            self._failed += failed
            self._consecutive = self._consecutive + 1 if failed else 0
            if self._consecutive > self._limit.consecutive:
                raise StopRun(
                    f"{self._consecutive} jobs in a row failed, more than --max-dead-letters allows; find out why from "
                    "the dead-letter topic before starting again."
                )
            if len(self._recent) == self._limit.window and self._failed > self._limit.ratio * self._limit.window:
                raise StopRun(
                    f"{self._failed} of the last {self._limit.window} jobs failed; find out why from the dead-letter "
                    "topic before starting again."
                )
