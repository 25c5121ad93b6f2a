"""Jobs a second through one worker, and how long a job takes at a given load, with a stub for the generator.

The worker is a process of its own; the broker is the pip one that the tests use, in memory, on the same machine. Jobs
carry 256x256 JPEGs, results carry them back, so that nothing but the stream is measured.

    python -m benchmarks.stream --jobs 8000 --picture docs/stream.png
    python -m benchmarks.stream --against-convert summer2winter      the same photos through both, in turn
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from torch import Tensor

from benchmarks.common import make_model, make_photos, report, run, spread
from engine.config import BatchConfig, EncodeConfig, GenerateConfig, PipelineConfig
from engine.options import Options, Size
from engine.stream.client import make_admin
from engine.stream.config import StreamConfig
from engine.stream.connection import Connection
from tests.stream.brokers import tansu

PARTITIONS = 4
MAX_WAIT_S = 0.05
BATCH = 16
QUALITY = 90


def invert(pixels_NHWC: Tensor) -> Tensor:
    """Stand in for a generator."""
    return torch.from_numpy(255 - pixels_NHWC.numpy())


def serve(brokers: str, model: str, translate: bool, stop: Any, memory: Any, cpu: Any) -> None:
    """Run one worker until `stop`; reports its peak memory in bytes and its processor time in seconds.

    Without `translate` an inversion of the pixels stands in for the generator.
    """
    from engine.stream.worker import Worker

    config = StreamConfig(
        connection=Connection(brokers=brokers),
        jobs="jobs",
        results="results",
        dead_letters="dead",
        group="bench",
        models=(model,),
        fetch_wait_s=0.025,  # this broker holds a fetch to the end even when jobs come
        pipeline=PipelineConfig(
            options=Options(size=Size.parse("256x256")),
            batch=BatchConfig(size=BATCH, max_wait_s=MAX_WAIT_S),
            generate=GenerateConfig(backend="inductor" if translate else "auto"),
            encode=EncodeConfig(quality=QUALITY),
        ),
    )
    worker = Worker(config, None if translate else {Path(model).stem: invert})

    def watch() -> None:
        while not stop.wait(0.5):
            cpu.value = time.process_time()
            memory.value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        worker.stop()

    threading.Thread(target=watch, daemon=True).start()
    worker.work()


class Load:
    """Sends jobs at a rate and takes the times of their results."""

    def __init__(self, brokers: str, photos: list[bytes]) -> None:
        self._producer = KafkaProducer(bootstrap_servers=brokers, linger_ms=2)
        self._consumer = KafkaConsumer(bootstrap_servers=brokers, fetch_max_wait_ms=5)
        self._consumer.assign([TopicPartition("results", 0)])
        self._consumer.seek_to_end()
        self._consumer.position(TopicPartition("results", 0))
        sources = [f"data:;base64,{base64.b64encode(photo).decode()}" for photo in photos]
        self._tails = [f'", "source": "{source}", "inline": true}}'.encode() for source in sources]
        self._sent = 0

    def run(self, count: int, rate: float | None) -> dict[str, float]:
        """Send `count` jobs, at `rate` a second or as fast as possible; returns rate and latency."""
        first, produced = self._sent, np.zeros(count)
        self._sent += count
        sender = threading.Thread(target=self._send, args=(first, count, rate, produced))
        started_s = time.perf_counter()
        sender.start()
        latency_s: list[float] = []
        while len(latency_s) < count:
            for messages in self._consumer.poll(timeout_ms=200).values():
                now_s = time.perf_counter()
                latency_s += [now_s - produced[int(message.key) - first] for message in messages]
        seconds = time.perf_counter() - started_s
        sender.join()
        return {
            "offered_per_s": round(rate or 0, 1),
            "jobs_per_s": round(count / seconds, 1),
            "p50_ms": round(float(np.percentile(latency_s, 50)) * 1e3, 1),
            "p99_ms": round(float(np.percentile(latency_s, 99)) * 1e3, 1),
        }

    def _send(self, first: int, count: int, rate: float | None, produced: Any) -> None:
        started_s = time.perf_counter()
        for i in range(count):
            if rate is not None:
                time.sleep(max(0.0, started_s + i / rate - time.perf_counter()))
            id = str(first + i).encode()
            produced[i] = time.perf_counter()
            value = b'{"id": "' + id + self._tails[i % len(self._tails)]
            self._producer.send("jobs", key=id, value=value, partition=i % PARTITIONS)
        self._producer.flush()


def main() -> None:
    """Parse, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=8000, help="in each of the two runs at full speed")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run at a given load")
    parser.add_argument("--picture", type=Path, help="where to draw rate and latency against offered load")
    parser.add_argument(
        "--against-convert", metavar="MODEL", help="compare with `solstice convert`, generator included"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch, tansu(Path(scratch) / "broker.log") as brokers:
        make_photos(Path(scratch) / "photos", 100)
        if arguments.against_convert:
            report("stream against convert", against_convert(Path(scratch), brokers, arguments.against_convert))
            return
        result = measure(Path(scratch), brokers, arguments.jobs, arguments.seconds)
    if arguments.picture:
        draw(result["loads"], arguments.picture)
    report("stream", result)


def measure(scratch: Path, brokers: str, jobs: int, seconds: float) -> dict[str, Any]:
    """Find the highest rate and the memory it takes, then the latency at shares of it."""
    photos = [path.read_bytes() for path in sorted((scratch / "photos").iterdir())]
    model = str(make_model(scratch / "stub.safetensors", ngf=4, blocks=1))
    with worker(brokers, model, translate=False) as (memory, cpu):
        load = Load(brokers, photos)
        load.run(500, None)  # starts the worker, its decoders and its connections
        full = load.run(jobs, None)
        time.sleep(1)
        half_way, cpu_before_s = memory.value, cpu.value
        again = load.run(jobs, None)
        time.sleep(1)
        end, cpu_s = memory.value, cpu.value - cpu_before_s
        top = max(full["jobs_per_s"], again["jobs_per_s"])
        loads = [load.run(int(top * share * seconds), top * share) for share in (0.1, 0.25, 0.5, 0.75, 0.9)]
    return {
        "photo_bytes": round(sum(map(len, photos)) / len(photos)),
        "full_speed_jobs_per_s": [full["jobs_per_s"], again["jobs_per_s"]],
        "worker_cpu_ms_per_job": round(cpu_s / jobs * 1e3, 3),
        "peak_megabytes": [round(half_way / 1e6), round(end / 1e6)],
        "loads": loads,
    }


def against_convert(scratch: Path, brokers: str, model: str, rounds: int = 3) -> dict[str, Any]:
    """Send the photos through a warm worker and through `solstice convert`, in turn; both rates leave out the start."""
    photos = [path.read_bytes() for path in sorted((scratch / "photos").iterdir())]
    options = ("--model", model, "--size", "256x256", "--batch", BATCH, "--quality", QUALITY, "--backend", "inductor")
    streamed, converted = [], []
    with worker(brokers, model, translate=True):
        load = Load(brokers, photos)
        load.run(len(photos), None)
        for number in range(rounds):
            streamed.append(load.run(len(photos), None)["jobs_per_s"])
            shown = run("-m", "engine", "convert", scratch / "photos", scratch / f"out{number}", *options, "--json")
            converted.append(json.loads(shown.stdout)["images_per_second"])
    return {
        "photos": len(photos),
        "stream_jobs_per_s": spread(streamed),
        "convert_images_per_s": spread(converted),
        "ratio": spread([one / other for one, other in zip(streamed, converted, strict=True)]),
    }


@contextmanager
def worker(brokers: str, model: str, *, translate: bool) -> Iterator[tuple[Any, Any]]:
    """Run a worker in a process of its own on new topics; yields the values that `serve` reports."""
    admin = make_admin(Connection(brokers=brokers))
    admin.create_topics([NewTopic("jobs", PARTITIONS, 1), NewTopic("results", 1, 1), NewTopic("dead", 1, 1)])
    context = multiprocessing.get_context("spawn")
    stop, memory, cpu = context.Event(), context.Value("q", 0), context.Value("d", 0.0)
    process = context.Process(target=serve, args=(brokers, model, translate, stop, memory, cpu))
    process.start()
    try:
        yield memory, cpu
    finally:
        stop.set()
        process.join(30)


def draw(loads: list[dict[str, float]], path: Path) -> None:
    """Draw rate and latency against offered load."""
    from matplotlib import pyplot

    offered = [load["offered_per_s"] for load in loads]
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(7, 6))
    above.plot(offered, [load["jobs_per_s"] for load in loads], "o-")
    above.set_ylabel("results a second")
    for name, label in (("p50_ms", "median"), ("p99_ms", "99 %")):
        below.plot(offered, [load[name] for load in loads], "o-", label=label)
    below.axhline(MAX_WAIT_S * 1e3, linestyle=":", color="grey", label="--max-wait")
    below.set_yscale("log")
    below.set_ylabel("ms from send to result")
    below.set_xlabel("jobs offered a second")
    below.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
