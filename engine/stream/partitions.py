"""How far a partition may be committed while its jobs end in any order."""

from __future__ import annotations

from collections import OrderedDict


class OffsetTracker:
    """The low watermark of one partition: everything below it is done, nothing above it is promised.

    Offsets must be taken in rising order, gaps allowed: compacted topics and transactions leave some. Not safe for
    several threads at once.
    """

    def __init__(self) -> None:
        self._unfinished: OrderedDict[int, None] = OrderedDict()  # rising, as taken
        self._next: int | None = None

    def take(self, offset: int) -> None:
        """Note that the job at `offset` is under way; raises `ValueError` when it is not above the last one."""
        if self._next is not None and offset < self._next:
            raise ValueError(f"offset {offset} comes after {self._next - 1}")
        self._unfinished[offset] = None
        self._next = offset + 1

    def finish(self, offset: int) -> None:
        """Note that the job at `offset` has ended; raises `KeyError` when it is not under way."""
        del self._unfinished[offset]

    @property
    def watermark(self) -> int | None:
        """The offset to commit: that of the first unfinished job, or the one after the last; None before the first."""
        return next(iter(self._unfinished), self._next)

    @property
    def num_unfinished(self) -> int:
        """Jobs under way."""
        return len(self._unfinished)

    @property
    def gap(self) -> int:
        """How many offsets lie between the watermark and the last job taken: what a crash would do again."""
        watermark = self.watermark
        return 0 if watermark is None or self._next is None else self._next - watermark
