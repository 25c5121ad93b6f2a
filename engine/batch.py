"""Group pictures of one shape for one model into batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from engine.config import CPU_BATCH, BatchConfig
from engine.records import Batch, Failed, Picture, Record

Decoded = list[Record[Picture] | Failed]
_Shape = tuple[str, int, int]


@dataclass
class _Group:
    """Pictures of one shape that wait for company."""

    opened_s: float
    records: list[Record[Picture]] = field(default_factory=list)

    @property
    def num_pixels(self) -> int:
        first = self.records[0].payload
        return len(self.records) * first.height * first.width


class Batcher:
    """Group decoded pictures; failures and ticks pass through.

    A group closes when it has `config.size` pictures or `config.max_pixels` pixels, when its oldest picture has
    waited `config.max_wait_s`, when the waiting pictures of all shapes together would exceed `config.max_pixels`
    (the oldest group goes first: no shape starves and memory stays bounded), and at the end.
    """

    def __init__(self, config: BatchConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._size = config.size or CPU_BATCH
        self._clock = clock
        self._groups: dict[_Shape, _Group] = {}  # in the order of opening
        self._waiting_pixels = 0

    def __call__(self, decoded: Iterable[Decoded | None]) -> Iterator[Batch | Failed | None]:
        """Iterate over batches as they close."""
        for chunk in decoded:
            for item in chunk or ():
                if isinstance(item, Failed):
                    yield item
                else:
                    yield from self._add(item)
            yield from self._overdue()
            if chunk is None:
                yield None
        for shape in list(self._groups):
            yield self._close(shape)

    def _add(self, record: Record[Picture]) -> Iterator[Batch]:
        picture = record.payload
        num_pixels = picture.height * picture.width
        while self._groups and self._waiting_pixels + num_pixels > self._config.max_pixels:
            yield self._close(next(iter(self._groups)))
        shape = (record.options.model, picture.height, picture.width)
        group = self._groups.setdefault(shape, _Group(self._clock()))
        group.records.append(record)
        self._waiting_pixels += num_pixels
        if len(group.records) >= self._size or group.num_pixels >= self._config.max_pixels:
            yield self._close(shape)

    def _overdue(self) -> Iterator[Batch]:
        limit_s = self._clock() - self._config.max_wait_s
        while self._groups and next(iter(self._groups.values())).opened_s <= limit_s:
            yield self._close(next(iter(self._groups)))

    def _close(self, shape: _Shape) -> Batch:
        group = self._groups.pop(shape)
        self._waiting_pixels -= group.num_pixels
        return Batch(tuple(group.records), self._clock() - group.opened_s)
