"""A source over a list, for tests and for use from Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.records import Failed, Options, Outcome, Record


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
                yield Record(key=key, payload=data, options=self._options, ack=key)

    def acknowledge(self, outcome: Outcome) -> None:
        """Keep `outcome`."""
        self.outcomes.append(outcome)
