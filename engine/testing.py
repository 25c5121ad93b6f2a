"""A source and a sink in memory, for tests and for use from Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.options import Options
from engine.records import Encoded, Failed, Origin, Outcome, Record, Stored


class MemorySource:
    """Yields (key, encoded bytes) pairs in order and keeps their outcomes."""

    def __init__(self, images: Iterable[tuple[str, bytes] | None], options: Options | None = None) -> None:
        """A None among `images` makes the source yield a tick."""
        self._images = images
        self._options = options or Options()
        self.outcomes: list[Outcome] = []

    def records(self) -> Iterator[Record[bytes] | Failed | None]:
        """Iterate over the images; never blocks."""
        for image in self._images:
            if image is None:
                yield None
            else:
                key, data = image
                yield Record(key=key, payload=data, options=self._options, origin=Origin(output=key))

    def checkpoint(self) -> None:
        """Do nothing: outcomes are in memory."""

    def acknowledge(self, outcome: Outcome) -> None:
        """Keep `outcome`."""
        self.outcomes.append(outcome)


class MemorySink:
    """Keeps results and failures by key; thread-safe, since each call is one assignment."""

    def __init__(self) -> None:
        self.results: dict[str, Encoded] = {}
        self.failures: dict[str, str] = {}

    def store(self, record: Record[Encoded]) -> Stored:
        """Keep the bytes."""
        encoded = record.payload
        self.results[record.key] = encoded
        return Stored.of(encoded, record.key)

    def reject(self, failed: Failed) -> None:
        """Keep the reason of a failure."""
        self.failures[failed.key] = failed.reason

    def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Return the outcomes unchanged."""
        return outcomes
