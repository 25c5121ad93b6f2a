"""What every sink promises, over memory, archive and Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.archive.sink import ArchiveSink
from engine.observe.health import Health
from engine.observe.metrics import NoMetrics
from engine.options import Options
from engine.ports import Sink
from engine.records import Encoded, Origin, Record, Stored
from engine.stream.config import KafkaSinkConfig
from engine.stream.connection import Connection
from engine.stream.jobs import Job, JobState, Message
from engine.stream.outputs import Output
from engine.stream.sink import KafkaSink
from engine.testing import MemorySink
from tests.stream.conftest import broker as broker
from tests.stream.stream import make_topics


@dataclass
class Case:
    """One sink, how records are addressed to it, and what it has kept."""

    sink: Sink
    origin: Callable[[str], Origin]
    kept: Callable[[str], bytes | None]


@contextmanager
def memory(_: str, __: Path) -> Iterator[Case]:
    sink = MemorySink()
    yield Case(
        sink, lambda key: Origin(output=key), lambda key: sink.results[key].data if key in sink.results else None
    )


def file_at(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@contextmanager
def archive(_: str, folder: Path) -> Iterator[Case]:
    yield Case(ArchiveSink(folder), lambda key: Origin(output=key), lambda key: file_at(folder / key))


@contextmanager
def kafka(brokers: str, folder: Path) -> Iterator[Case]:
    results, dead = make_topics(brokers, "results", "dead")
    config = KafkaSinkConfig(results=results, dead_letters=dead, group="g", worker="w", acknowledge_s=3.0)
    sink = KafkaSink(Connection(brokers=brokers), config, Output(str(folder)), NoMetrics(), Health())

    def origin(key: str) -> JobState:
        job = Job(id=key, source=key, output=key, options=Options())
        message = Message("jobs", 0, 0, 0.0, None, b"{}")
        return JobState(message=message, epoch=1, id=key, wait_s=0.0, job=job, digest="0" * 64, model_sha256="0" * 64)

    yield Case(sink, origin, lambda key: file_at(folder / key))
    sink.close(2)


@pytest.fixture(params=[memory, archive, kafka])
def case(request: pytest.FixtureRequest, broker: str, tmp_path: Path) -> Iterator[Case]:
    with request.param(broker, tmp_path) as made:
        yield made


def record(case: Case, key: str, data: bytes = b"image") -> Record[Encoded]:
    encoded = Encoded(data=data, format="JPEG", width=4, height=3)
    return Record(key=key, payload=encoded, options=Options(), origin=case.origin(key))


def store(case: Case, record: Record[Encoded]) -> Stored:
    """Store and settle one result, as the pipeline does."""
    (outcome,) = case.sink.settle([record.replace(case.sink.store(record))])
    assert isinstance(outcome, Record)
    return outcome.payload


def test_what_is_stored_is_there(case: Case) -> None:
    stored = store(case, record(case, "a/x.jpg"))
    assert (stored.num_bytes, stored.width, stored.height) == (5, 4, 3)
    assert case.kept("a/x.jpg") == b"image"


def test_storing_again_replaces(case: Case) -> None:
    store(case, record(case, "x.jpg"))
    store(case, record(case, "x.jpg", b"other"))
    assert case.kept("x.jpg") == b"other"


def test_settling_gives_the_outcomes_back_in_order(case: Case) -> None:
    good, bad = record(case, "good.jpg"), record(case, "bad.jpg").failed("decode", "damaged")
    stored = good.replace(case.sink.store(good))
    case.sink.reject(bad)
    assert case.sink.settle([bad, stored]) == [bad, stored]
    assert case.kept("bad.jpg") is None
