"""A limit on failed jobs that stops a broken deployment, and that its restarts do not reset."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterable

from engine.errors import SetupError, StopRun
from engine.stream.config import DeadLetterLimit

_ADVICE = "find out why from the dead-letter topic"


class DeadLetterGuard:
    """Counts outcomes against a limit; thread-safe."""

    def __init__(self, limit: DeadLetterLimit) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._consecutive = 0
        self._recent: deque[bool] = deque(maxlen=limit.window)
        self._failed = 0

    def saw(self, failed: bool) -> None:
        """Count one outcome, before it is published; raises `StopRun` when the limit is exceeded."""
        with self._lock:
            self._count(failed)
            excess = self._excess()
        if excess is not None:
            raise StopRun(f"{excess}; {_ADVICE} before starting again.")

    def remember(self) -> str:
        """Return the counts as text, to be committed with the group's offsets."""
        with self._lock:
            counts = {"consecutive": self._consecutive, "failed": self._failed, "of": len(self._recent)}
        return json.dumps({**counts, "at": round(time.time(), 3)}, separators=(",", ":"))

    def restore(self, texts: Iterable[str]) -> None:
        """Continue with the newest counts of earlier workers of the group.

        Raises `SetupError` when they exceed the limit. Texts that are not from `remember` are ignored: other programs
        may commit for the same group.
        """
        known = [counts for text in texts if (counts := _parsed(text)) is not None]
        if not known:
            return
        _, consecutive, failed, of = max(known)
        with self._lock:
            for i in range(min(of, self._limit.window)):
                self._count(i < failed)  # the order is not kept: failures first, so that they leave the window first
            self._consecutive = consecutive
            excess = self._excess()
        if excess is not None:
            raise SetupError(
                f"This worker does not start: {excess} before the last worker of its group stopped; {_ADVICE}, then "
                "start once with --reset-dead-letter-limit."
            )

    def _count(self, failed: bool) -> None:
        if len(self._recent) == self._limit.window:
            self._failed -= self._recent[0]
        self._recent.append(failed)
        self._failed += failed
        self._consecutive = self._consecutive + 1 if failed else 0

    def _excess(self) -> str | None:
        """Return a sentence on how far the limit is exceeded; None if it is not."""
        if self._consecutive > self._limit.consecutive:
            return f"{self._consecutive} jobs in a row failed, more than --max-dead-letters {self._limit.consecutive}"
        window = self._limit.window
        if len(self._recent) == window and self._failed > self._limit.ratio * window:
            return f"{self._failed} of the last {window} jobs failed, more than --max-dead-letter-ratio allows"
        return None


def _parsed(text: str) -> tuple[float, int, int, int] | None:
    """Return time, consecutive failures, recent failures and recent jobs from what `remember` returned."""
    try:
        counts = json.loads(text)
        return float(counts["at"]), int(counts["consecutive"]), int(counts["failed"]), int(counts["of"])
    except (ValueError, KeyError, TypeError):
        return None
