"""The protocols that sources, sinks and previews implement, and what each call promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.records import Encoded, Failed, Outcome, Record, Stored


class Source(Protocol):
    """Yields records and takes the outcome of each.

    A record that was not acknowledged when the process died is yielded again by the next process; one that was
    acknowledged is not, as soon as the source has flushed.
    """

    def records(self) -> Iterator[Record[bytes] | Failed | None]:
        """Iterate over the images, each with its encoded bytes, in any order.

        Runs in a thread of its own and may block. Yields None (a tick) at least once a second while it waits for more,
        so that the pipeline can end when it is closed. An image that cannot be read is a `Failed`. Raises `StopRun`
        when the source is lost.
        """
        ...

    def checkpoint(self) -> None:
        """Make all acknowledgements so far durable, if that can be done in a few seconds.

        Called before an image that might end the process by the memory it takes, from the thread that inspects it.
        """
        ...

    def acknowledge(self, outcome: Outcome) -> None:
        """Record that an image has reached its end.

        Called once for each record, in any order, from one thread (not that of `records`), after the result or the
        failure is durable. Must not block for long.
        """
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """The file or object that has the name of a result before the result is made."""

    num_bytes: int
    changed_s: float | None = None
    """Time of its last change in the file system, in seconds since 1970; None where it is not known."""
    file_id: tuple[int, int] | None = None
    """Device and inode, links not followed; None where it is no local file."""


class Sink(Protocol):
    """Stores results.

    For the images of a batch the pipeline calls `store` once each, `reject` for those that failed here or earlier, and
    then `settle` once for all of them, from the same thread.
    """

    def store(self, record: Record[Encoded]) -> Stored:
        """Store one result, which never appears half-written; `settle` may be what gives it its name.

        Called from several threads, may block. Storing the same key again replaces it. Raises `SkipImage` when this
        one cannot be stored and `StopRun` when nothing can be.
        """
        ...

    def reject(self, failed: Failed) -> None:
        """Record a failure where the user looks for it. Called from several threads."""
        ...

    def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Make results and rejected failures durable and publish all outcomes; on return they survive a crash.

        Returns the outcomes in their order, with a `Failed` in the place of a result that could not be published. May
        block for as long as the destination of the results is unavailable.
        """
        ...


class ArchiveOutput(Sink, Protocol):
    """A sink that keeps results under names and can look them up."""

    def find(self, output: str) -> Found | None:
        """Return what is at the relative path `output`, or None. Must be fast: called for each input of an archive."""
        ...

    def close(self) -> None:
        """Delete results that were stored and not settled; call it when no thread stores any more."""
        ...


class Preview(Protocol):
    """Receives photos before and after translation, for a report page. Called from several threads."""

    def wants(self, key: str) -> bool:
        """Return whether `show` should be called for this image. Must be fast: called for every image."""
        ...

    def show(self, key: str, before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8]) -> None:
        """Take one photo and its translation, both sRGB uint8 [H, W, 3]; the arrays are not kept."""
        ...
