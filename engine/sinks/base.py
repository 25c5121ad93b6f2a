"""What every sink promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.records import Encoded, Failed, Outcome, Record, Stored


@dataclass(frozen=True, slots=True)
class Found:
    """What is at the place of a result before it is made."""

    num_bytes: int
    changed_s: float | None = None
    """When the file system last changed it, in seconds since 1970; None where that is not known."""
    file_id: tuple[int, int] | None = None
    """Device and inode of what has the name, links not followed; None where it is no local file."""


class Sink(Protocol):
    """Stores results.

    For the images of a batch the pipeline calls `store` once each, `reject` for those that failed here or earlier, and
    then `settle` once for all of them, from the same thread.
    """

    def store(self, record: Record[Encoded]) -> Stored:
        """Store one result; on return it survives a crash of the process, and never appears half-written.

        Called from several threads, may block. Storing the same key again replaces it. Raises `SkipImage` when this
        one cannot be stored and `StopRun` when nothing can be.
        """
        ...

    def reject(self, failed: Failed) -> None:
        """Keep a failure where the user looks for it. Called from several threads."""
        ...

    def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Make what `reject` was given durable, and tell whoever waits for these outcomes; on return both are done.

        Gives the outcomes back in their order, with a `Failed` in the place of a result that could not be told. May
        block for as long as the results' destination is away.
        """
        ...


class ArchiveOutput(Sink, Protocol):
    """A sink that keeps results under names and can tell which are there."""

    def find(self, output: str) -> Found | None:
        """Tell what is at the relative path `output`, or None. Must be fast: asked for each input of an archive."""
        ...
