"""Repeated measurements: rates, their spread, and alternation of what is compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

NOISY = 0.2
"""A measurement whose values span more than this share of their median is too noisy to trust."""


@dataclass(frozen=True)
class Spread:
    """The values of one measurement, one per round."""

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a measurement needs at least one value")

    @property
    def median(self) -> float:
        """Median of the values."""
        return statistics.median(self.values)

    @property
    def noisy(self) -> bool:
        """Whether the values differ too much to be trusted."""
        return (max(self.values) - min(self.values)) > NOISY * abs(self.median)

    def over(self, other: Spread) -> Spread:
        """Divide by `other` round by round; both were measured in the same rounds."""
        return Spread(tuple(one / two for one, two in zip(self.values, other.values, strict=True)))

    def scaled(self, factor: float) -> Spread:
        """Multiply every value."""
        return Spread(tuple(value * factor for value in self.values))

    def to_document(self) -> dict[str, Any]:
        """Return median, extremes and values, rounded to five significant digits."""
        numbers = {"median": self.median, "min": min(self.values), "max": max(self.values)}
        return {**{name: _rounded(value) for name, value in numbers.items()}, "values": [*map(_rounded, self.values)]}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Spread:
        """Read what `to_document` returned."""
        return cls(tuple(document["values"]))


def rate(
    work: Callable[[T], object],
    items: Sequence[T],
    threads: int,
    measured_s: float,
    prepare: Callable[[], None] | None = None,
) -> float:
    """Return the items per second of `work` over `items` in `threads` threads, each of which calls `prepare` first.

    Passes over the items until `measured_s` have gone by, and at least once.
    """
    done = 0
    with ThreadPoolExecutor(threads, initializer=prepare) as pool:
        started_s = time.perf_counter()
        while done == 0 or time.perf_counter() - started_s < measured_s:
            for _ in pool.map(work, items):
                done += 1
        return done / (time.perf_counter() - started_s)


def alternate(measurements: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, Spread]:
    """Take all measurements in turn, `rounds` times, after one round that is not counted.

    A machine that slows down for a while then slows down everything that is compared, not one side of it.
    """
    for measure in measurements.values():
        measure()
    taken = [{name: measure() for name, measure in measurements.items()} for _ in range(rounds)]
    return {name: Spread(tuple(values[name] for values in taken)) for name in measurements}


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
