"""What every sink promises."""

from __future__ import annotations

from typing import Protocol

from engine.records import Encoded, Failed, Record, Stored


class Sink(Protocol):
    """Stores results."""

    def store(self, record: Record[Encoded]) -> Stored:
        """Store one result; on return it survives a crash of the process, and never appears half-written.

        Called from several threads, may block. Storing the same key again replaces it. Raises `SkipImage` when this
        one cannot be stored and `StopRun` when nothing can be.
        """
        ...

    def reject(self, failed: Failed) -> None:
        """Keep a failure where the user looks for it; durable on return. Called from several threads."""
        ...
