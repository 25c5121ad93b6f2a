"""Every metric by name, kind and unit, and where measurements go: nowhere, into a summary, or to Prometheus.

Names are those that Prometheus shows, without the prefix `solstice_`. No label ever holds an id, a URI or the text of
an error: the number of its values would grow without end.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

STAGES = ("read", "inspect", "decode", "generate", "encode", "store")
StageName = Literal["read", "inspect", "decode", "generate", "encode", "store"]


Kind = Literal["counter", "gauge", "histogram"]

_STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_JOB_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_SIZE_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what it counts and in which unit, which labels it has."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS = (
    Metric(
        "jobs_total", "counter", "Images that have ended, by outcome and the stage that failed", ("outcome", "reason")
    ),
    Metric("stage_seconds", "histogram", "Duration of one call of a stage", ("stage",), _STAGE_BUCKETS),
    Metric("stage_images_total", "counter", "Images that have passed a stage", ("stage",)),
    Metric("batch_images", "histogram", "Images in a batch as the generator takes it", (), _SIZE_BUCKETS),
    Metric("batch_wait_seconds", "histogram", "How long the oldest image of a batch waited for it", (), _STAGE_BUCKETS),
    Metric(
        "job_seconds",
        "histogram",
        "From the time stamp of a job's message to its acknowledged result",
        (),
        _JOB_BUCKETS,
    ),
    Metric("queue_jobs", "gauge", "Jobs fetched and not begun (fetched), begun and not ended (pipeline)", ("queue",)),
    Metric("in_flight_jobs", "gauge", "Jobs fetched and not ended"),
    Metric("in_flight_bytes", "gauge", "Bytes of the messages of jobs in flight"),
    Metric("lag_jobs", "gauge", "Jobs on the topic behind the low watermark", ("partition",)),
    Metric("oldest_job_seconds", "gauge", "Age of the oldest job in flight, by its message's time stamp"),
    Metric("paused_partitions", "gauge", "Partitions that are not fetched from at the moment"),
    Metric("assigned_partitions", "gauge", "Partitions that this worker owns"),
    Metric("last_poll_timestamp_seconds", "gauge", "When the poll thread last came back, in seconds since 1970"),
    Metric("commits_total", "counter", "Offset commits, by result", ("result",)),
    Metric("rebalances_total", "counter", "Changes of the assignment, by kind", ("kind",)),
    Metric("retries_total", "counter", "Repeated attempts after passing trouble, by stage", ("stage",)),
    Metric("dead_letters_total", "counter", "Jobs sent to the dead-letter topic, by the stage that failed", ("stage",)),
    Metric("duplicates_total", "counter", "Jobs answered from an earlier result"),
    Metric("sink_up", "gauge", "1 while results can be stored and sent, 0 while the worker waits for that"),
    Metric("producer_rebuilds_total", "counter", "Producers given up and made anew"),
    Metric("models_resident", "gauge", "Generators in memory"),
    Metric("gpu_memory_bytes", "gauge", "Memory of the GPU, by kind", ("kind",)),
    Metric(
        "build_info", "gauge", "Always 1; versions are in the labels", ("version", "python", "torch", "kafka_python")
    ),
)


class Metrics(Protocol):
    """Takes measurements; every method is cheap and safe to call from any thread.

    `count`, `gauge` and `observe` take the name of a counter, gauge or histogram of `METRICS`, and its labels' values
    in their order there.
    """

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """One call of a stage took `seconds` for `images` images."""
        ...

    def outcome(self, failed_in: StageName | str | None) -> None:
        """One image has ended: well (None), or failed in a stage."""
        ...

    def count(self, name: str, amount: float = 1.0, *labels: str) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        ...

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Put a value into a histogram."""
        ...


class Silent:
    """Takes measurements and forgets them: the default."""

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Forget."""

    def outcome(self, failed_in: StageName | str | None) -> None:
        """Forget."""

    def count(self, name: str, amount: float = 1.0, *labels: str) -> None:
        """Forget."""

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Forget."""

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Forget."""


class Tally(Silent):
    """Adds up what the summary of a run tells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.stage_seconds: Counter[str] = Counter()
        self.stage_images: Counter[str] = Counter()
        self.converted = 0
        self.failed = 0

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Add to the stage's busy time, over all its threads."""
        with self._lock:
            self.stage_seconds[name] += seconds  # type: ignore[assignment]  # Counter adds floats as well
            self.stage_images[name] += images

    def outcome(self, failed_in: StageName | str | None) -> None:
        """Count."""
        with self._lock:
            if failed_in is None:
                self.converted += 1
            else:
                self.failed += 1


class Both:
    """Gives every measurement to two takers, such as a summary and Prometheus."""

    def __init__(self, one: Metrics, other: Metrics) -> None:
        self._takers = (one, other)

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Pass on."""
        for taker in self._takers:
            taker.stage(name, seconds, images)

    def outcome(self, failed_in: StageName | str | None) -> None:
        """Pass on."""
        for taker in self._takers:
            taker.outcome(failed_in)

    def count(self, name: str, amount: float = 1.0, *labels: str) -> None:
        """Pass on."""
        for taker in self._takers:
            taker.count(name, amount, *labels)

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Pass on."""
        for taker in self._takers:
            taker.gauge(name, value, *labels)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Pass on."""
        for taker in self._takers:
            taker.observe(name, value, *labels)


@contextmanager
def timed(metrics: Metrics, name: StageName, images: int) -> Iterator[None]:
    """Measure the body of a `with` as one call of the stage `name`."""
    started_s = time.perf_counter()
    try:
        yield
    finally:
        metrics.stage(name, time.perf_counter() - started_s, images)
