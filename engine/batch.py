"""Group inspected images into chunks for the decoder, and decoded images of one shape into generator batches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from engine.config import CPU_BATCH, GPU_BATCH, BatchConfig, DecodeConfig
from engine.records import Batch, DecodedImage, Failed, Inspected, Record

Chunk = list[Record[Inspected] | Failed]
Decoded = list[Record[DecodedImage] | Failed]
_Shape = tuple[str, int, int]

_CHUNK_WAIT_S = 0.005
"""How long a chunk may wait for more images; longer than reading one from a local disk takes."""
_PRESSURE_POLL_S = 0.1
"""How often to look whether held-back images must be let go."""
_IDLE_POLL_S = 0.003
"""How long no image may come before a group leaves for a generator that has nothing to do."""


class Chunker:
    """Group inspected images for the decoder, by count and by pixels; ticks pass through.

    A chunk that is not full is closed by a tick, so give `due_in` to whatever supplies the images.
    """

    def __init__(self, config: DecodeConfig) -> None:
        self._config = config
        self._chunk: Chunk = []
        self._pixels = 0

    def due_in(self) -> float | None:
        """Return the seconds after which the open chunk wants to be closed; None when there is none."""
        return _CHUNK_WAIT_S if self._chunk else None

    def __call__(self, items: Iterable[Record[Inspected] | Failed | None]) -> Iterator[Chunk | None]:
        """Iterate over chunks as they close."""
        config = self._config
        for item in items:
            if item is None:
                yield from self._close()
                yield None
                continue
            pixels = 0 if isinstance(item, Failed) else item.payload.num_pixels
            if len(self._chunk) >= config.chunk_images or self._pixels + pixels > config.chunk_pixels:
                yield from self._close()
            self._chunk.append(item)
            self._pixels += pixels
        yield from self._close()

    def _close(self) -> Iterator[Chunk]:
        if self._chunk:
            chunk, self._chunk, self._pixels = self._chunk, [], 0
            yield chunk


@dataclass
class _Group:
    """Images of one shape that wait for a full batch."""

    opened_s: float
    records: list[Record[DecodedImage]] = field(default_factory=list)

    @property
    def num_pixels(self) -> int:
        first = self.records[0].payload
        return len(self.records) * first.height * first.width


class Batcher:
    """Group decoded images of one shape for one model; failures and ticks pass through.

    A group closes when it has the images of a full batch (`images_of_full`), when its oldest image has waited
    `config.max_wait_s`, when the waiting images of all shapes together would exceed `config.max_pixels` (the oldest
    group goes first: no shape starves and memory stays bounded), and at the end. While `pressed` returns True, the
    oldest group closes at each tick, because images that wait here keep others from being admitted.

    Where `config.max_wait_s` is finite, latency matters: the oldest group closes also at a tick while `generator_idle`
    returns True, since waiting for more images would gain nothing. Batches grow by themselves as the load does, because
    images collect while the generator is busy (adaptive batching: Crankshaw et al., Clipper, NSDI 2017). Then ticks
    pass only while no image waits.
    """

    def __init__(
        self,
        config: BatchConfig,
        clock: Callable[[], float] = time.monotonic,
        pressed: Callable[[], bool] = lambda: False,
        generator_idle: Callable[[], bool] = lambda: False,
    ) -> None:
        self._config = config
        self._max_pixels = max_pixels(config)
        self._clock = clock
        self._pressed = pressed
        self._generator_idle = generator_idle
        self._leaves_early = math.isfinite(config.max_wait_s)
        self._groups: dict[_Shape, _Group] = {}  # in the order of opening
        self._waiting_pixels = 0

    def due_in(self) -> float | None:
        """Return the seconds after which the oldest group wants a tick; None when no image waits."""
        if not self._groups:
            return None
        oldest = next(iter(self._groups.values()))
        poll_s = _IDLE_POLL_S if self._leaves_early else _PRESSURE_POLL_S
        return min(poll_s, max(0.0, oldest.opened_s + self._config.max_wait_s - self._clock()))

    def __call__(self, decoded: Iterable[Decoded | None]) -> Iterator[Batch | Failed | None]:
        """Iterate over batches as they close."""
        for items in decoded:
            for item in items or ():
                if isinstance(item, Failed):
                    yield item
                else:
                    yield from self._add(item)
            yield from self._overdue()
            if items is None:
                if self._groups and (self._pressed() or (self._leaves_early and self._generator_idle())):
                    yield self._close(next(iter(self._groups)))
                if not (self._groups and self._leaves_early):
                    yield None
        for shape in list(self._groups):
            yield self._close(shape)

    def _add(self, record: Record[DecodedImage]) -> Iterator[Batch]:
        picture = record.payload
        num_pixels = picture.height * picture.width
        while self._groups and self._waiting_pixels + num_pixels > self._max_pixels:
            yield self._close(next(iter(self._groups)))
        shape = (record.options.model, picture.height, picture.width)
        group = self._groups.setdefault(shape, _Group(self._clock()))
        group.records.append(record)
        self._waiting_pixels += num_pixels
        if len(group.records) >= images_of_full(self._config, num_pixels):
            yield self._close(shape)

    def _overdue(self) -> Iterator[Batch]:
        limit_s = self._clock() - self._config.max_wait_s
        while self._groups and next(iter(self._groups.values())).opened_s <= limit_s:
            yield self._close(next(iter(self._groups)))

    def _close(self, shape: _Shape) -> Batch:
        group = self._groups.pop(shape)
        self._waiting_pixels -= group.num_pixels
        return Batch(tuple(group.records), self._clock() - group.opened_s)


def images_of_full(config: BatchConfig, num_pixels: int) -> int:
    """Return the number of images in a full batch where each has `num_pixels`; at least one."""
    most_pixels = min(max_pixels(config), config.full_pixels or max_pixels(config))
    return max(1, min(config.size or CPU_BATCH, most_pixels // num_pixels))


def max_pixels(config: BatchConfig) -> int:
    """Return the maximum pixels of images waiting for their batches."""
    return config.max_pixels or max(config.size or CPU_BATCH, GPU_BATCH) * 256 * 256
