"""What every source promises, over memory, archive and Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaProducer

from engine.archive.config import ArchiveConfig
from engine.archive.manifest import Manifest
from engine.archive.plan import make_plan
from engine.archive.sink import ArchiveSink
from engine.archive.source import ArchiveSource
from engine.listing import list_inputs
from engine.observe.health import Health
from engine.observe.metrics import NoMetrics
from engine.options import Options
from engine.ports import Source
from engine.records import Failed, Outcome, Record, Stored
from engine.stream.config import KafkaSourceConfig
from engine.stream.connection import Connection
from engine.stream.inputs import Inputs
from engine.stream.source import KafkaSource
from engine.testing import MemorySource
from tests.stream.conftest import broker as broker
from tests.stream.stream import make_topics

IMAGES = {f"{i}.jpg": bytes([i]) * 10 for i in range(6)}


@dataclass
class Case:
    """One source over `IMAGES`, made anew by each `open`, and what ends it if it does not end by itself."""

    open: Callable[[], Iterator[Source]]
    stop: Callable[[Source], None] = lambda source: None
    remembers: bool = True


@contextmanager
def memory(_: str, __: Path) -> Iterator[Case]:
    def make() -> Iterator[Source]:
        yield MemorySource(IMAGES.items())

    yield Case(make, remembers=False)


@contextmanager
def archive(_: str, folder: Path) -> Iterator[Case]:
    (folder / "in").mkdir()
    for name, data in IMAGES.items():
        (folder / "in" / name).write_bytes(data)

    def make() -> Iterator[Source]:
        sink = ArchiveSink(folder / "out")
        config = ArchiveConfig()
        with Manifest(folder / "out") as manifest:
            inventory = list_inputs(folder / "in")
            plan = make_plan(inventory, manifest.earlier_runs(), sink, Options(), "recipe", config)
            manifest.start_run("{}", "recipe")
            yield ArchiveSource(plan.todo, manifest.record, Options(), "recipe", max_bytes=config.max_bytes)

    (folder / "out").mkdir()
    yield Case(make)


@contextmanager
def kafka(brokers: str, _: Path) -> Iterator[Case]:
    (jobs,) = make_topics(brokers, "jobs")
    producer = KafkaProducer(bootstrap_servers=brokers)
    for name, data in IMAGES.items():
        producer.send(jobs, key=name.encode(), value=data)
    producer.close(5)

    def make() -> Iterator[Source]:
        source = KafkaSource(
            Connection(brokers=brokers),
            KafkaSourceConfig(topic=jobs, group=jobs, fetch_wait_s=0.025),
            Inputs([], 1000),
            Options(model="m"),
            {"m": "0" * 64},
            lambda ticket: False,
            NoMetrics(),
            Health(),
        )
        source.start()
        yield source
        assert source.close(20, abandon=True)

    def stop(source: Source) -> None:
        assert isinstance(source, KafkaSource)
        threading.Timer(3.0, source.stop).start()

    yield Case(make, stop)


@pytest.fixture(params=[memory, archive, kafka])
def case(request: pytest.FixtureRequest, broker: str, tmp_path: Path) -> Iterator[Case]:
    with request.param(broker, tmp_path) as made:
        yield made


def stored(record: Record[bytes]) -> Outcome:
    return record.replace(Stored(location=record.key, num_bytes=5, width=4, height=3))


def given(case: Case, acknowledge: Callable[[Record[bytes]], bool], output: Path) -> dict[str, bytes]:
    """Take what the source gives until it ends, and acknowledge what is asked for."""
    found: dict[str, bytes] = {}
    for source in case.open():
        case.stop(source)
        for record in source.records():
            assert not isinstance(record, Failed)
            if record is None:
                continue
            found[record.key] = record.payload
            if acknowledge(record):
                if output.exists():
                    (output / record.key).write_bytes(b"image")
                source.acknowledge(stored(record))
        time.sleep(0.01)
    return found


def test_every_image_comes_once_with_its_bytes(case: Case, tmp_path: Path) -> None:
    assert given(case, lambda record: True, tmp_path / "out") == IMAGES


def test_what_was_not_acknowledged_comes_again_and_the_rest_does_not(case: Case, tmp_path: Path) -> None:
    # One partition: Kafka gives again from the first job that has not ended, here the fourth.
    given(case, lambda record: record.key < "3", tmp_path / "out")
    again = given(case, lambda record: True, tmp_path / "out")
    missing = {name: data for name, data in IMAGES.items() if name >= "3"}
    assert again == (missing if case.remembers else IMAGES)
