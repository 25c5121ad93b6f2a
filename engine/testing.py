"""A source over a list, for tests and for use from Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.options import Options
from engine.records import Encoded, Failed, Origin, Outcome, Record, Stored


class MemorySource:
    """Gives (key, encoded bytes) pairs in their order and keeps what it is told of them."""

    def __init__(self, images: Iterable[tuple[str, bytes] | None], options: Options | None = None) -> None:
        """`images` may hold None where the source should seem idle."""
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

    def acknowledge(self, outcome: Outcome) -> None:
        """Keep `outcome`."""
        self.outcomes.append(outcome)


class MemorySink:
    """Keeps results and failures by key; safe from several threads, since each call is one assignment."""

    def __init__(self) -> None:
        self.results: dict[str, Encoded] = {}
        self.failures: dict[str, str] = {}

    def store(self, record: Record[Encoded]) -> Stored:
        """Keep the bytes."""
        encoded = record.payload
        self.results[record.key] = encoded
        return Stored.of(encoded, record.key)

    def reject(self, failed: Failed) -> None:
        """Keep the reason."""
        self.failures[failed.key] = failed.reason

    def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Do nothing: nobody waits."""
        return outcomes
