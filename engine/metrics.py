"""Every metric by name, kind and unit, and where measurements go: nowhere, into a summary, or to Prometheus."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol

STAGES = ("read", "inspect", "decode", "generate", "encode", "store")
StageName = Literal["read", "inspect", "decode", "generate", "encode", "store"]


class Metrics(Protocol):
    """Takes measurements; every method is cheap and safe to call from any thread."""

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """One call of a stage took `seconds` for `images` images."""
        ...

    def outcome(self, failed_in: StageName | str | None) -> None:
        """One image has ended: well (None), or failed in a stage."""
        ...


class Silent:
    """Takes measurements and forgets them: the default."""

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Forget."""

    def outcome(self, failed_in: StageName | str | None) -> None:
        """Forget."""


class Tally:
    """Adds up what the summary of a run tells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.stage_seconds: Counter[str] = Counter()
        self.stage_images: Counter[str] = Counter()
        self.converted = 0
        self.failed = 0

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Add to the stage's busy time, over all its threads."""
        with self._lock:
            self.stage_seconds[name] += seconds  # type: ignore[assignment]  # Counter adds floats as well
            self.stage_images[name] += images

    def outcome(self, failed_in: StageName | str | None) -> None:
        """Count."""
        with self._lock:
            if failed_in is None:
                self.converted += 1
            else:
                self.failed += 1


@contextmanager
def timed(metrics: Metrics, name: StageName, images: int) -> Iterator[None]:
    """Measure the body of a `with` as one call of the stage `name`."""
    started_s = time.perf_counter()
    try:
        yield
    finally:
        metrics.stage(name, time.perf_counter() - started_s, images)
