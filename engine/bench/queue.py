"""The queue alone: jobs per second through one worker, and how long a job takes at half of that.

The worker runs in a process of its own, on topics that are made for the measurement and deleted after it. An inversion
of the pixels stands in for the generator, whose rate is measured without a queue.
"""

from __future__ import annotations

import multiprocessing
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import orjson
import torch
from torch import Tensor

from engine.bench.config import THUMBNAILS, Effort
from engine.bench.end_to_end import PeakMemory
from engine.bench.machine import own_cpu_s
from engine.bench.photos import Scenes
from engine.bench.timing import Spread
from engine.config import PipelineConfig
from engine.errors import StopRun
from engine.system.allocator import keep_freed_memory

PARTITIONS = 4
MAX_WAIT_S = 0.05
"""The default of `solstice stream --max-wait`."""
FETCH_WAIT_MS = 5
"""How long a fetch of results waits: some brokers hold one that finds nothing to the end even when messages arrive."""
_SILENT_S = 60.0  # without a result, before the measurement is given up
_WARM_UP_JOBS = 200
_STOP_S = 30.0
_REPORTED_EVERY_S = 0.25


def measure_queue(brokers: str, model: Path, scenes: Scenes, config: PipelineConfig, effort: Effort) -> dict[str, Any]:
    """Measure the queue at `brokers`; raises `SetupError` when they cannot be reached, `StopRun` without results."""
    photos = [scenes.jpeg(number, THUMBNAILS.width, THUMBNAILS.height) for number in range(THUMBNAILS.different)]
    config = queue_config(config, translate=False)
    with queue_worker(brokers, model, config) as worker, inline_load(brokers, worker.topics, photos) as load:
        rates = measure_rates(worker, load, effort.jobs, effort.rounds)
    return {"brokers": brokers, "photo_bytes": round(sum(map(len, photos)) / len(photos)), **rates}


def queue_config(config: PipelineConfig, *, translate: bool) -> PipelineConfig:
    """Return `config` for thumbnails; without `translate` the generator is loaded and never called."""
    return replace(
        config,
        options=THUMBNAILS.options,
        batch=replace(config.batch, max_wait_s=MAX_WAIT_S),
        generate=config.generate if translate else replace(config.generate, backend="eager"),
    )


def measure_rates(worker: QueueWorker, load: QueueLoad, jobs: int, rounds: int) -> dict[str, Any]:
    """Measure the highest rate, the worker's processor time and memory, and the latency at half of that rate."""
    load.run(_WARM_UP_JOBS, None)
    full = [load.run(jobs, None) for _ in range(rounds)]
    cpu_s = worker.cpu_s()
    full.append(load.run(jobs, None))
    cpu_s = worker.cpu_s() - cpu_s
    rates = Spread(tuple(run.jobs_per_s for run in full))
    half = [load.run(max(1, jobs // 2), rates.median / 2) for _ in range(rounds)]
    return {
        "jobs": jobs,
        "jobs_per_s": rates.to_document(),
        "worker_cpu_ms_per_job": round(cpu_s / jobs * 1e3, 3),
        "worker_peak_bytes": worker.peak_bytes(),
        "half_load_median_ms": Spread(tuple(run.median_ms for run in half)).to_document(),
        "half_load_p99_ms": Spread(tuple(run.p99_ms for run in half)).to_document(),
    }


@dataclass(frozen=True)
class Topics:
    """Topics of one measurement."""

    jobs: str
    results: str
    dead_letters: str

    @classmethod
    def fresh(cls) -> Topics:
        """Return names that no other measurement uses."""
        name = f"solstice-bench-{secrets.token_hex(4)}"
        return cls(f"{name}-jobs", f"{name}-results", f"{name}-dead-letters")


@dataclass(frozen=True)
class LoadRun:
    """Jobs sent and answered."""

    jobs_per_s: float
    median_ms: float
    """From sending a job to receiving its result."""
    p99_ms: float


@contextmanager
def inline_load(
    brokers: str, topics: Topics, photos: Sequence[bytes], fetch_wait_ms: int = FETCH_WAIT_MS
) -> Iterator[QueueLoad]:
    """Yield a load of jobs that carry `photos` in turn."""
    from engine.stream.jobs import data_uri

    load = QueueLoad(brokers, topics, [data_uri(photo) for photo in photos], fetch_wait_ms)
    try:
        yield load
    finally:
        load.close()


class QueueLoad:
    """Sends jobs and waits for their results."""

    def __init__(
        self, brokers: str, topics: Topics, sources: Sequence[str], fetch_wait_ms: int = FETCH_WAIT_MS
    ) -> None:
        """Connect; `sources` are those of the jobs, in turn."""
        from engine.stream.client import make_consumer, make_producer
        from engine.stream.connection import Connection

        connection = Connection(brokers=brokers)
        self._topics = topics
        self._sources = sources
        self._producer = make_producer(connection)
        self._consumer = make_consumer(connection, topics.results, fetch_max_wait_ms=fetch_wait_ms)
        self._sent = 0

    def run(self, count: int, jobs_per_s: float | None) -> LoadRun:
        """Send `count` jobs, at `jobs_per_s` or as fast as possible, and wait for all results."""
        first, sent_s = self._sent, [0.0] * count
        self._sent += count
        sender = threading.Thread(target=self._send, args=(first, count, jobs_per_s, sent_s), daemon=True)
        started_s = heard_s = time.perf_counter()
        sender.start()
        latencies_s: list[float] = []
        while len(latencies_s) < count:
            fetched = self._consumer.poll(timeout_ms=200)
            now_s = time.perf_counter()
            for messages in fetched.values():
                numbers = [int(message.key) - first for message in messages]
                latencies_s += [now_s - sent_s[number] for number in numbers if 0 <= number < count]
                heard_s = now_s
            if now_s - heard_s > _SILENT_S:
                raise StopRun(f"No result has come from the worker for {_SILENT_S:.0f} s; check the brokers' log.")
        seconds = time.perf_counter() - started_s
        sender.join()
        ordered = sorted(latencies_s)
        return LoadRun(count / seconds, ordered[len(ordered) // 2] * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3)

    def send_beside(self, sources: Sequence[str]) -> None:
        """Send a job for each of `sources`, for whose results `run` does not wait."""
        for source in sources:
            self._send_job("-1", source)
        self._producer.flush()

    def close(self) -> None:
        """Close both connections."""
        self._producer.close(5)
        self._consumer.close(timeout_ms=2000)

    def _send(self, first: int, count: int, jobs_per_s: float | None, sent_s: list[float]) -> None:
        started_s = time.perf_counter()
        for i in range(count):
            if jobs_per_s is not None:
                time.sleep(max(0.0, started_s + i / jobs_per_s - time.perf_counter()))
            sent_s[i] = time.perf_counter()
            self._send_job(str(first + i), self._sources[i % len(self._sources)])
        self._producer.flush()

    def _send_job(self, id: str, source: str) -> None:
        job = {"id": id, "source": source, "inline": True}
        self._producer.send(self._topics.jobs, key=id.encode(), value=orjson.dumps(job))


class QueueWorker:
    """A worker in a process of its own."""

    def __init__(self, topics: Topics, cpu_s: Synchronized[float], peak_bytes: Synchronized[int]) -> None:
        self.topics = topics
        self._cpu_s, self._peak_bytes = cpu_s, peak_bytes

    def cpu_s(self) -> float:
        """Return the processor time that the worker has taken, up to half a second old."""
        time.sleep(2 * _REPORTED_EVERY_S)
        return self._cpu_s.value

    def peak_bytes(self) -> int:
        """Return the highest resident memory of the worker."""
        return self._peak_bytes.value


@contextmanager
def queue_worker(
    brokers: str, model: Path, config: PipelineConfig, *, translate: bool = False, **settings: Any
) -> Iterator[QueueWorker]:
    """Run a worker on topics of its own during a `with` block; the topics are deleted afterwards.

    Without `translate` an inversion of the pixels stands in for the generator. `settings` are fields of `StreamConfig`.
    """
    from engine.stream.client import make_admin, require_topics
    from engine.stream.connection import Connection

    connection, topics = Connection(brokers=brokers), Topics.fresh()
    names = [topics.jobs, topics.results, topics.dead_letters]
    require_topics(connection, names, PARTITIONS)
    context = multiprocessing.get_context("spawn")
    stop, cpu_s, peak_bytes = context.Event(), context.Value("d", 0.0), context.Value("q", 0)
    settings = {"models": (str(model),), "pipeline": config, **settings}
    process = context.Process(
        target=_serve, args=(brokers, topics, settings, translate, stop, cpu_s, peak_bytes), daemon=True
    )
    process.start()
    try:
        yield QueueWorker(topics, cpu_s, peak_bytes)
    finally:
        stop.set()
        process.join(_STOP_S)
        process.kill()
        process.join()
        admin = make_admin(connection)
        with suppress(Exception):  # brokers may forbid it; the names say what these topics are
            admin.delete_topics(names)
        admin.close()


def _serve(
    brokers: str,
    topics: Topics,
    settings: dict[str, Any],
    translate: bool,
    stop: Event,
    cpu_s: Synchronized[float],
    peak_bytes: Synchronized[int],
) -> None:
    """Run one worker until `stop`, and report its processor time and peak memory."""
    from engine.stream.config import StreamConfig
    from engine.stream.connection import Connection
    from engine.stream.worker import Worker

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops it
    keep_freed_memory()  # as the command does
    stream = StreamConfig(
        connection=Connection(brokers=brokers),
        jobs=topics.jobs,
        results=topics.results,
        dead_letters=topics.dead_letters,
        group=topics.jobs,
        **settings,
    )
    worker = Worker(stream, None if translate else {Path(stream.models[0]).stem: invert})
    peak = PeakMemory(torch.device("cpu"))

    def report() -> None:
        while not stop.wait(_REPORTED_EVERY_S):
            cpu_s.value, peak_bytes.value = own_cpu_s(), peak.num_bytes()
        worker.stop()

    threading.Thread(target=report, name="report", daemon=True).start()
    worker.work()


def invert(pixels_NHWC: Tensor) -> Tensor:
    """Stand in for a generator: uint8 to the same shape and dtype."""
    return torch.from_numpy(255 - pixels_NHWC.numpy())
