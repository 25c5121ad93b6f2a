"""A source over the inputs of an archive that are to be translated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from engine.archive.manifest import ManifestEntry
from engine.archive.plan import PlannedInput
from engine.errors import SkipImage
from engine.flow import in_threads
from engine.listing import printable
from engine.options import Options
from engine.records import Failed, Origin, Outcome, Record

_WAITING = 4
"""Inputs that wait, read, for the pipeline; with room for one alone, threads would wake each other at each input."""


@dataclass(slots=True, kw_only=True)
class ArchiveOrigin(Origin):
    """Origin of a record that an `ArchiveSource` yields."""

    identity: str
    """Size and time of the input, as the manifest keeps them."""
    num_bytes: int = 0
    """Size of the input; 0 where it is not known."""
    remark: str = ""
    """A remark about the result's name."""


class ArchiveSource:
    """Reads planned inputs in their order, and passes an entry for each outcome to the manifest."""

    def __init__(
        self,
        planned: Iterable[PlannedInput | None],
        record: Callable[[ManifestEntry], None],
        options: Options,
        recipe: str,
        *,
        max_bytes: int,
        read_ahead: int = 1,
    ) -> None:
        """Read up to `read_ahead` inputs at the same time; more than 1 only for inputs that can be read in any order.

        None among the inputs means that the next one is not known yet; there must be one at least once a second then.
        `record` receives the entry of each acknowledged outcome; `recipe` identifies model and settings. An input with
        more than `max_bytes` bytes fails without being read.
        """
        self._planned = planned
        self._record = record
        self._options = options
        self._recipe = recipe
        self._max_bytes = max_bytes
        self._read_ahead = read_ahead
        self._under_way: dict[str, float] = {}
        self._options_by_format: dict[str, Options] = {}
        self._lock = threading.Lock()

    def records(self) -> Iterator[Record[bytes] | Failed | None]:
        """Iterate over the inputs; blocks only to read."""
        if self._read_ahead == 1:
            yield from (None if planned is None else self._read(planned) for planned in self._planned)
        else:
            yield from in_threads(self._read, iter(self._planned), self._read_ahead, "read", depth=_WAITING)

    def checkpoint(self) -> None:
        """Do nothing: the manifest commits twice a second, and what it has not committed is translated again."""

    def acknowledge(self, outcome: Outcome) -> None:
        """Record `outcome`; raises `StopRun` when that cannot be written."""
        with self._lock:
            self._under_way.pop(outcome.key, None)
        self._record(entry_of(outcome, self._recipe))

    def oldest_under_way(self) -> tuple[str, float] | None:
        """Return the key of the input that has been under way for longest, and for how many seconds."""
        with self._lock:
            key = next(iter(self._under_way), None)
            return None if key is None else (key, time.monotonic() - self._under_way[key])

    def _read(self, planned: PlannedInput) -> Record[bytes] | Failed:
        """Read one input; runs in several threads."""
        item = planned.item
        key, origin = printable(item.key), origin_of(planned)
        with self._lock:
            self._under_way[key] = time.monotonic()
        started_s = time.perf_counter()
        try:
            data = self._data(planned)
            outcome: Record[bytes] | Failed = Record(
                key=key, payload=data, options=self._options_of(planned.format), origin=origin
            )
        except SkipImage as error:
            outcome = Failed(key=key, stage="read", reason=str(error), origin=origin)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            outcome = Failed(key=key, stage="read", reason=reason, origin=origin)
        except MemoryError:
            reason = "cannot be read: there is not enough memory (--max-bytes lowers the limit)"
            outcome = Failed(key=key, stage="read", reason=reason, origin=origin)
        outcome.timings["read"] = time.perf_counter() - started_s
        return outcome

    def _options_of(self, format: str) -> Options:
        """Return the options of an image that is written in `format`; one object for all of these."""
        if format not in self._options_by_format:
            self._options_by_format[format] = replace(self._options, format=format)
        return self._options_by_format[format]

    def _data(self, planned: PlannedInput) -> bytes:
        if planned.failure:
            raise SkipImage(planned.failure)
        self._check_size(planned.item.num_bytes)
        data = planned.item.read()
        self._check_size(len(data))
        return data

    def _check_size(self, num_bytes: int | None) -> None:
        if num_bytes is not None and num_bytes > self._max_bytes:
            raise SkipImage(f"{num_bytes:,} bytes are over the limit of {self._max_bytes:,} (--max-bytes raises it)")


def origin_of(planned: PlannedInput) -> ArchiveOrigin:
    """Return what the records of one input carry to the sink and to the manifest."""
    return ArchiveOrigin(
        identity=planned.item.identity,
        output=planned.output,
        modified_ns=planned.item.modified_ns,
        num_bytes=planned.item.num_bytes or 0,
        remark=planned.remark,
    )


def entry_of(outcome: Outcome, recipe: str) -> ManifestEntry:
    """Return the manifest's entry for an image that an `ArchiveSource` yielded."""
    origin = outcome.origin
    assert isinstance(origin, ArchiveOrigin)
    if isinstance(outcome, Failed):
        return ManifestEntry(
            key=outcome.key, identity=origin.identity, recipe=recipe, stage=outcome.stage, error=outcome.reason
        )
    stored = outcome.payload
    return ManifestEntry(
        key=outcome.key,
        identity=origin.identity,
        recipe=recipe,
        output=stored.location,
        num_bytes=stored.num_bytes,
        notes=(*stored.notes, origin.remark) if origin.remark else stored.notes,
    )
