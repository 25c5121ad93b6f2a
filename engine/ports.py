"""The protocols that sources, sinks and previews implement, and what each call promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.records import Encoded, Failed, Outcome, Record, Stored


class Source(Protocol):
    """Gives records and is told what became of each.

    A record that was not acknowledged when the process died is given again by the next process; one that was
    acknowledged is not, as soon as the source has flushed.
    """

    def records(self) -> Iterator[Record[bytes] | Failed | None]:
        """Iterate over the images, each with its encoded bytes, in the source's own order.

        Runs in a thread of its own and may block. Gives None (a tick) at least every 100 ms while it is waiting for
        more, so that those who wait for a full batch can stop waiting. An image that cannot be read is a `Failed`.
        Raises `StopRun` when the source is lost.
        """
        ...

    def acknowledge(self, outcome: Outcome) -> None:
        """Take note that a record has reached its end.

        Called once per record, in any order, from one thread (not that of `records`), after the result or the
        failure is durable. Must not block for long.
        """
        ...


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


class Preview(Protocol):
    """Receives photos before and after translation, for a report page. Called from several threads."""

    def wants(self, key: str) -> bool:
        """Return whether `show` should be called for this image. Must be fast: called for every image."""
        ...

    def show(self, key: str, before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8]) -> None:
        """Take one photo and its translation, both sRGB uint8 [H, W, 3]; the arrays are not kept."""
        ...
