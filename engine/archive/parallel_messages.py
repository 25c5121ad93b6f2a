"""Messages that a process of a run on several devices or machines sends to its parent.

Every message is pickled, through a pipe or through Ray. A measurement is part of a message and can be applied to the
parent's `Metrics`.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Protocol

from engine.archive.report.gallery import Comparison
from engine.errors import EngineError
from engine.observe.metrics import Metrics, StageName
from engine.records import Outcome


@dataclass(frozen=True, slots=True)
class StageMeasurement:
    """One call of a stage."""

    stage: StageName
    seconds: float
    images: int

    def apply(self, metrics: Metrics) -> None:
        """Add the measurement to `metrics`."""
        metrics.stage(self.stage, self.seconds, self.images)


@dataclass(frozen=True, slots=True)
class CounterMeasurement:
    """An amount to add to a counter."""

    name: str
    amount: float
    labels: tuple[str, ...]

    def apply(self, metrics: Metrics) -> None:
        """Add the measurement to `metrics`."""
        metrics.count(self.name, self.amount, *self.labels)


@dataclass(frozen=True, slots=True)
class HistogramMeasurement:
    """A value for a histogram."""

    name: str
    value: float
    labels: tuple[str, ...]

    def apply(self, metrics: Metrics) -> None:
        """Add the measurement to `metrics`."""
        metrics.observe(self.name, self.value, *self.labels)


Measurement = StageMeasurement | CounterMeasurement | HistogramMeasurement


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """The process has loaded its generator and starts to read."""

    backend: str
    """What translates, and why it was chosen."""


@dataclass(frozen=True, slots=True)
class ImagesEnded:
    """Images have been stored or have failed since the last message of this kind."""

    outcomes: list[Outcome]
    measurements: list[Measurement]


@dataclass(frozen=True, slots=True)
class OldestUnderWay:
    """The image that the process has been working on for longest; sent where that takes long, and once it is over."""

    key: str | None
    """None when there is none that takes long any more."""
    seconds: float


@dataclass(frozen=True, slots=True)
class LogMessage:
    """A line for the parent's log."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class ComparisonMade:
    """Thumbnails of one photo for the report page."""

    comparison: Comparison


@dataclass(frozen=True, slots=True)
class RunStopped:
    """An error that ends the whole run, with a sentence for the user."""

    error: EngineError


@dataclass(frozen=True, slots=True)
class ProcessCrashed:
    """A defect: the traceback of an exception that is not an `EngineError`."""

    traceback: str


@dataclass(frozen=True, slots=True)
class ShareFinished:
    """All images of the process have ended."""


ChildMessage = (
    ModelLoaded
    | ImagesEnded
    | OldestUnderWay
    | LogMessage
    | ComparisonMade
    | RunStopped
    | ProcessCrashed
    | ShareFinished
)


class MessageSender(Protocol):
    """Where a process sends its messages, from any thread."""

    def send(self, message: ChildMessage) -> None:
        """Send `message`; do nothing when the parent has gone."""
        ...


@dataclass
class PipeSender:
    """The child's end of a pipe, shared by all its threads."""

    connection: Connection
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, message: ChildMessage) -> None:
        """Send `message`; when the parent has gone, this process is about to be stopped."""
        with self._lock, suppress(BrokenPipeError):
            self.connection.send(message)
