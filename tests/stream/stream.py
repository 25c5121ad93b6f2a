"""Helpers of the stream tests: topics, jobs, workers in this process or in one of their own, and their results."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import torch
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from PIL import Image
from torch import Tensor

from engine.config import BatchConfig, GenerateConfig, PipelineConfig
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import save_generator
from engine.options import Options, Size
from engine.stream.client import make_admin
from engine.stream.config import StreamConfig
from engine.stream.connection import Connection
from engine.stream.jobs import schema
from engine.stream.worker import Worker
from tests import ROOT

_validate_result: Callable[[object], object] = fastjsonschema.compile(schema("result-v1"))


def photo(seed: int = 0, width: int = 40, height: int = 32, format: str = "JPEG") -> bytes:
    """Return a small encoded image, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(buffer, format)
    return buffer.getvalue()


def tiny_model(path: Path, seed: int = 0) -> Path:
    """Write a small generator whose weights depend on the seed, and return its path."""
    torch.manual_seed(seed)
    arch = Architecture(ngf=4, blocks=1)
    save_generator(path, ResnetGenerator(arch), Card(name=path.stem, architecture=arch), dtype=torch.float32)
    return path


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until `condition` holds; fail after `seconds`."""
    until_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until_s, f"not within {seconds} s"
        time.sleep(0.05)


def make_topics(brokers: str, *names: str) -> list[str]:
    """Create topics of one partition each and return their names, which start with `names`."""
    admin = make_admin(Connection(brokers=brokers))
    topics = [f"{name}-{uuid.uuid4().hex[:8]}" for name in names]
    admin.create_topics([NewTopic(topic, 1, 1) for topic in topics])
    admin.close()
    return topics


@dataclass
class Stream:
    """Topics, folders, a model and the workers of one test."""

    brokers: str
    folder: Path
    model: Path
    partitions: int = 4
    name: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of the `StreamConfig` of workers in this process."""
    fetch_wait_ms: int = 100
    """Maximum wait of the broker before it answers a fetch of results."""

    def __post_init__(self) -> None:
        self.inputs, self.outputs = self.folder / "in", self.folder / "out"
        self.inputs.mkdir()
        admin = make_admin(self.connection)
        large = {"max.message.bytes": str(16 << 20)}
        for topic, partitions in ((self.jobs, self.partitions), (self.results_topic, 1), (self.dead_topic, 1)):
            admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=large)])
        admin.close()
        self._producer = KafkaProducer(bootstrap_servers=self.brokers, max_request_size=64 << 20, linger_ms=5)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._workers: list[tuple[Worker, threading.Thread]] = []

    @property
    def connection(self) -> Connection:
        """Connection settings of the broker."""
        return Connection(brokers=self.brokers)

    @property
    def jobs(self) -> str:
        """Name of the jobs topic."""
        return f"{self.name}-jobs"

    @property
    def results_topic(self) -> str:
        """Name of the results topic."""
        return f"{self.name}-results"

    @property
    def dead_topic(self) -> str:
        """Name of the dead-letter topic."""
        return f"{self.name}-dead"

    # ---- jobs ----

    def add_photo(self, name: str, data: bytes) -> str:
        """Write a photo below the input root and return its URI."""
        path = self.inputs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path.as_uri()

    def submit(self, **fields: Any) -> None:
        """Send a JSON job with these fields."""
        self.send(json.dumps(fields).encode(), fields.get("id", "").encode() or None)

    def send(
        self, value: bytes | None, key: bytes | None = None, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        """Send a message with any value to the jobs topic."""
        self._producer.send(self.jobs, value=value, key=key, headers=headers)

    def submit_photos(self, count: int, start: int = 0) -> list[str]:
        """Write `count` photos below the input root, send a job for each and return the ids."""
        ids = [f"job-{i}" for i in range(start, start + count)]
        for i, id in enumerate(ids, start):
            self.submit(id=id, source=self.add_photo(f"{i}.jpg", photo(i)), output=f"{i:04d}.jpg")
        self.flush()
        return ids

    def flush(self) -> None:
        """Wait until the broker has acknowledged all jobs."""
        self._producer.flush()

    # ---- workers ----

    def worker(self, translate: Mapping[str, Callable[[Tensor], Tensor]] | None = None, **options: Any) -> Worker:
        """Start a worker in a thread of this process."""
        worker = Worker(self.config(**options), translate, _no_exit)
        thread = threading.Thread(target=worker.work, daemon=True)
        thread.start()
        self._workers.append((worker, thread))
        return worker

    def config(self, **options: Any) -> StreamConfig:
        """Return the configuration of a worker in this process."""
        pipeline = PipelineConfig(
            options=Options(size=Size.parse("32x32")),
            batch=BatchConfig(size=4, max_wait_s=0.02),
            generate=GenerateConfig(backend="eager", device="cpu"),
        )
        defaults: dict[str, Any] = {
            "connection": self.connection,
            "jobs": self.jobs,
            "results": self.results_topic,
            "dead_letters": self.dead_topic,
            "group": self.name,
            "models": (str(self.model),),
            "input_roots": (str(self.inputs),),
            "output_root": str(self.outputs),
            "pipeline": pipeline,
            "acknowledge_s": 3.0,
            "fetch_wait_s": 0.025,  # the brokers that tests start answer a fetch after its whole wait, jobs or not
            "lag_every_s": 0.5,
        }
        return StreamConfig(**{**defaults, **self.options, **options})

    def stop(self, worker: Worker, seconds: float = 60.0) -> None:
        """Drain a worker and wait until its thread ends."""
        worker.stop()
        thread = next(thread for known, thread in self._workers if known is worker)
        thread.join(seconds)
        assert not thread.is_alive(), "the worker has not drained"

    def process(
        self, *options: str, wait: bool = True, change: str = "", prefix: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a worker in a process of its own; with `wait`, return once it has joined the group.

        `change` is code that runs before the worker starts, to shorten a time or to inject a failure. `prefix` is put
        in front of the command.
        """
        command = [
            *prefix,
            *(sys.executable, "-c", f"{change}\nfrom engine.cli.main import main\nmain()", "stream"),
            *("--brokers", self.brokers, "--group", self.name),
            *("--jobs", self.jobs, "--results", self.results_topic, "--dead-letters", self.dead_topic),
            *("--model", str(self.model), "--input-root", str(self.inputs), "--output-root", str(self.outputs)),
            *("--size", "32x32", "--fetch-wait", "0.025", "--backend", "eager", "--device", "cpu", *options),
        ]
        path = self.log(len(self._processes))
        with path.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=quiet_environment())
        self._processes.append(process)
        if wait:
            eventually(lambda: process.poll() is not None or b"Assigned partitions" in path.read_bytes())
            assert process.poll() is None, path.read_text()
        return process

    def log(self, number: int = 0) -> Path:
        """Return the log file of a worker's process, by the order of starts."""
        return self.folder / f"{number}-worker.log"

    # ---- results ----

    def results(self, count: int, seconds: float = 60.0, topic: str | None = None) -> list[dict[str, Any]]:
        """Wait for results of `count` different jobs; return all results there are, each validated by the schema."""
        found = [json.loads(raw.value) for raw in self._read(topic or self.results_topic, count, seconds)]
        for result in found:
            _validate_result(result)
        return found

    def dead_letters(self, count: int, seconds: float = 60.0) -> list[Any]:
        """Wait for `count` dead letters; return all there are."""
        return self._read(self.dead_topic, count, seconds)

    def messages(self, topic: str, count: int, seconds: float = 60.0) -> list[Any]:
        """Wait for messages with `count` different keys on a topic; return all there are."""
        return self._read(topic, count, seconds)

    def files(self) -> dict[str, bytes]:
        """Return the content of every result file, by its path below the output root."""
        return {
            path.relative_to(self.outputs).as_posix(): path.read_bytes()
            for path in sorted(self.outputs.rglob("*"))
            if path.is_file() and ".solstice" not in path.parts
        }

    def committed(self) -> int:
        """Return the sum of the group's committed offsets."""
        consumer = KafkaConsumer(bootstrap_servers=self.brokers, group_id=self.name, enable_auto_commit=False)
        try:
            partitions = [TopicPartition(self.jobs, i) for i in range(self.partitions)]
            return sum(consumer.committed(partition) or 0 for partition in partitions)
        finally:
            consumer.close(timeout_ms=1000)

    def committed_eventually(self) -> int:
        """Return the sum of committed offsets once it is stable for longer than the interval between commits."""
        before, now = -1, self.committed()
        while before != now:
            time.sleep(1.5)
            before, now = now, self.committed()
        return now

    def _read(self, topic: str, count: int, seconds: float) -> list[Any]:
        consumer = KafkaConsumer(
            bootstrap_servers=self.brokers, enable_auto_commit=False, fetch_max_wait_ms=self.fetch_wait_ms
        )
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning()
        found: list[Any] = []
        until_s = time.monotonic() + seconds
        try:
            while len({raw.key for raw in found}) < count and len(found) < 10 * count + 10:
                found += consumer.poll(timeout_ms=200).get(partition, [])
                keys = len({raw.key for raw in found})
                assert time.monotonic() < until_s, f"{keys} of {count} messages on {topic} after {seconds} s"
            found += consumer.poll(timeout_ms=300).get(partition, [])  # more than expected, if there are any
            return found
        finally:
            consumer.close(timeout_ms=1000)

    def close(self) -> None:
        """Kill the processes, drain the workers of this process and close the producer."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
        for worker, thread in self._workers:
            if thread.is_alive():
                self.stop(worker)
        self._producer.close(2)


def quiet_environment() -> dict[str, str]:
    """Return the environment for a worker's process: one thread, since several run at a time."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def _no_exit(code: int) -> None:
    raise AssertionError(f"the worker would have ended its process with exit code {code}")
