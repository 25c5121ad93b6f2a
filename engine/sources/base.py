"""What every source promises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from engine.records import Failed, Outcome, Record


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
