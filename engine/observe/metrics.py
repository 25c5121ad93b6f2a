"""Definitions of all metrics, and the interface of their receivers.

Names are those exported to Prometheus without the prefix `solstice_`. Labels never hold ids, URIs or error texts, whose
number of values is unbounded.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

STAGES = ("read", "inspect", "decode", "generate", "restore", "encode", "store")
StageName = Literal["read", "inspect", "decode", "generate", "restore", "encode", "store"]


Kind = Literal["counter", "gauge", "histogram"]

_STAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_JOB_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_SIZE_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """Definition of one metric; its unit is part of its name."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    initial: tuple[tuple[str, ...], ...] = ()
    """Label values exported as 0 from the start: to `rate` and `increase` a series has no growth before its first
    sample, so the first event would be lost."""


METRICS = (
    Metric(
        "jobs_total",
        "counter",
        "Images finished, by outcome and failed stage",
        ("outcome", "reason"),
        initial=(("done", ""),),
    ),
    Metric("stage_seconds", "histogram", "Duration of one call of a stage", ("stage",), _STAGE_BUCKETS),
    Metric("stage_images_total", "counter", "Images processed by a stage", ("stage",)),
    Metric("batch_images", "histogram", "Images per generator batch", (), _SIZE_BUCKETS),
    Metric(
        "batch_wait_seconds",
        "histogram",
        "Wait of the oldest image of a batch for the batch to fill",
        (),
        _STAGE_BUCKETS,
    ),
    Metric(
        "job_seconds",
        "histogram",
        "Time from a job message's timestamp to its acknowledged result, by model and outcome",
        ("model", "outcome"),
        _JOB_BUCKETS,
    ),
    Metric(
        "queue_jobs",
        "gauge",
        "Jobs fetched but not started (fetched), or started but not finished (pipeline)",
        ("queue",),
    ),
    Metric("in_flight_jobs", "gauge", "Jobs fetched but not finished"),
    Metric("in_flight_bytes", "gauge", "Message bytes of jobs in flight"),
    Metric("lag_jobs", "gauge", "Jobs on the topic after the low watermark", ("partition",)),
    Metric("oldest_job_seconds", "gauge", "Age of the oldest job in flight, from its message's timestamp"),
    Metric("paused_partitions", "gauge", "Assigned partitions that are paused"),
    Metric("assigned_partitions", "gauge", "Partitions assigned to this worker"),
    Metric("last_poll_timestamp_seconds", "gauge", "Unix time of the last completed poll"),
    Metric("commits_total", "counter", "Offset commits, by result", ("result",), initial=(("done",), ("failed",))),
    Metric(
        "rebalances_total",
        "counter",
        "Changes of the partition assignment, by kind",
        ("kind",),
        initial=(("assigned",), ("revoked",), ("lost",)),
    ),
    Metric(
        "retries_total",
        "counter",
        "Retries after transient failures, by stage",
        ("stage",),
        initial=(("read",), ("generate",), ("store",)),
    ),
    Metric(
        "dead_letters_total",
        "counter",
        "Jobs sent to the dead-letter topic, by failed stage",
        ("stage",),
        initial=tuple((stage,) for stage in ("job", "crash", *STAGES)),
    ),
    Metric(
        "crash_suspects_total",
        "counter",
        "Jobs that went alone because workers had crashed with them in progress",
    ),
    Metric("source_up", "gauge", "0 while jobs wait for an input root that does not answer", ("root",)),
    Metric("duplicates_total", "counter", "Duplicate jobs answered with an earlier result"),
    Metric("sink_up", "gauge", "1 if results can be stored and sent, 0 while the worker waits for the output"),
    Metric("producer_rebuilds_total", "counter", "Producers replaced after a failure"),
    Metric("models_resident", "gauge", "Generators held in memory"),
    Metric("gpu_memory_bytes", "gauge", "GPU memory, by kind", ("kind",)),
    Metric(
        "spans_total",
        "counter",
        "Spans of traces: made, sent to the collector, or failed to be sent; the rest was dropped before",
        ("result",),
    ),
    Metric("build_info", "gauge", "Always 1; the labels hold versions", ("version", "python", "torch", "kafka_python")),
)


class Metrics(Protocol):
    """Receiver of measurements; all methods are cheap and thread-safe.

    `count`, `gauge` and `observe` take the name of a counter, gauge or histogram in `METRICS`, then its label values in
    the order defined there.
    """

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Record one call of a stage that took `seconds` for `images` images."""
        ...

    def outcome(self, failed_in: StageName | str | None) -> None:
        """Record the end of one image; `failed_in` is None on success, else the failed stage."""
        ...

    def count(self, name: str, amount: float = 1.0, *labels: str) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        ...

    def forget(self, name: str, *labels: str) -> None:
        """Remove one labelled value of a gauge, such as the lag of a partition that was revoked."""
        ...

    def observe(self, name: str, value: float, *labels: str, trace_id: str = "") -> None:
        """Record a value in a histogram, with the id of the trace that it comes from as its exemplar."""
        ...


class NoMetrics:
    """Discard all measurements; the default."""

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Discard."""

    def outcome(self, failed_in: StageName | str | None) -> None:
        """Discard."""

    def count(self, name: str, amount: float = 1.0, *labels: str) -> None:
        """Discard."""

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Discard."""

    def forget(self, name: str, *labels: str) -> None:
        """Discard."""

    def observe(self, name: str, value: float, *labels: str, trace_id: str = "") -> None:
        """Discard."""


class Tally(NoMetrics):
    """Totals for the summary of a run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.stage_seconds: Counter[str] = Counter()
        self.stage_images: Counter[str] = Counter()
        self.converted = 0
        self.failed = 0

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Add to the busy time of a stage, summed over its threads."""
        with self._lock:
            self.stage_seconds[name] += seconds  # type: ignore[assignment]  # Counter adds floats as well
            self.stage_images[name] += images

    def outcome(self, failed_in: StageName | str | None) -> None:
        """Count converted and failed images."""
        with self._lock:
            if failed_in is None:
                self.converted += 1
            else:
                self.failed += 1


class CombinedMetrics:
    """Forward every measurement to two receivers, such as the summary and Prometheus."""

    def __init__(self, one: Metrics, other: Metrics) -> None:
        self._receivers = (one, other)

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Forward."""
        for receiver in self._receivers:
            receiver.stage(name, seconds, images)

    def outcome(self, failed_in: StageName | str | None) -> None:
        """Forward."""
        for receiver in self._receivers:
            receiver.outcome(failed_in)

    def count(self, name: str, amount: float = 1.0, *labels: str) -> None:
        """Forward."""
        for receiver in self._receivers:
            receiver.count(name, amount, *labels)

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Forward."""
        for receiver in self._receivers:
            receiver.gauge(name, value, *labels)

    def forget(self, name: str, *labels: str) -> None:
        """Forward."""
        for receiver in self._receivers:
            receiver.forget(name, *labels)

    def observe(self, name: str, value: float, *labels: str, trace_id: str = "") -> None:
        """Forward."""
        for receiver in self._receivers:
            receiver.observe(name, value, *labels, trace_id=trace_id)


@contextmanager
def timed(metrics: Metrics, name: StageName, images: int) -> Iterator[None]:
    """Record the duration of a `with` block as one call of stage `name`."""
    started_s = time.perf_counter()
    try:
        yield
    finally:
        metrics.stage(name, time.perf_counter() - started_s, images)
