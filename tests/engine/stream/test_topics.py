"""Read results, also those that arrive later, and send dead letters back, with a real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from engine.errors import StopRun
from engine.stream.client import make_producer
from engine.stream.connection import Connection
from engine.stream.topics import follow, replay
from tests.stream.brokers import noida
from tests.stream.stream import make_topics


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """Return the connection settings of a broker."""
    with noida(tmp_path_factory.mktemp("noida") / "data") as address:
        yield Connection(brokers=address)


def put(connection: Connection, topic: str, *values: bytes | None, **settings: Any) -> None:
    """Send messages and wait until the broker has acknowledged them."""
    producer = KafkaProducer(bootstrap_servers=connection.brokers)
    for value in values:
        producer.send(topic, value=value, **{"key": b"key", **settings})
    producer.flush()
    producer.close(2)


def got(connection: Connection, topic: str) -> list[Any]:
    """Return the messages on a topic of one partition."""
    consumer = KafkaConsumer(bootstrap_servers=connection.brokers, enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    found: list[Any] = []
    while fetched := consumer.poll(timeout_ms=500):
        found += [message for messages in fetched.values() for message in messages]
    consumer.close(timeout_ms=1000)
    return found


def result(id: str, status: str = "done") -> bytes:
    return json.dumps({"id": id, "status": status}).encode()


def letter(topic: str, stage: str = "read", **more: str) -> list[tuple[str, bytes]]:
    """Return the headers of a dead letter."""
    told = {"topic": topic, "stage": stage, **more}
    return [("trace", b"7"), *((f"solstice-{name}", value.encode()) for name, value in told.items())]


def back(connection: Connection, dead: str, *, stage: str | None = None, dry_run: bool = False) -> tuple[int, int]:
    return replay(connection, dead, f"replay-{dead}", stage=stage, idle_s=1.2, dry_run=dry_run)


def test_results_are_followed_and_other_messages_are_skipped(connection: Connection) -> None:
    (topic,) = make_topics(connection.brokers, "results")
    put(
        connection,
        topic,
        result("a"),
        b"{",
        None,
        b"[" * 100_000,
        b"[1]",
        b'{"id": "x"}',
        b"\xff",
        result("b", "failed"),
    )
    following = follow(connection, topic)
    seen = [found for found in iter(lambda: next(following), None) if found]
    assert [(found["id"], found["status"]) for found in seen] == [("a", "done"), ("b", "failed")]
    put(connection, topic, result("c"))
    later = next(found for found in islice(following, 50) if found)
    assert later["id"] == "c"


def test_only_results_after_the_start_are_new(connection: Connection) -> None:
    (topic,) = make_topics(connection.brokers, "results")
    put(connection, topic, result("old"))
    following = follow(connection, topic, only_new=True)
    assert next(following) is None
    put(connection, topic, result("new"))
    assert next(found for found in islice(following, 50) if found)["id"] == "new"


def test_a_dead_letter_is_sent_back_once_as_its_original_job(connection: Connection) -> None:
    jobs, dead = make_topics(connection.brokers, "jobs", "dead")
    put(connection, dead, b'{"id": "a"}', key=b"a", headers=letter(jobs))
    put(connection, dead, b'{"id": "b"}', key=b"b", headers=letter(jobs, replays="4"))
    assert back(connection, dead, dry_run=True) == (2, 0)
    assert back(connection, dead) == (2, 0)
    assert back(connection, dead) == (0, 0)
    sent = got(connection, jobs)
    assert [(job.key, job.value) for job in sent] == [(b"a", b'{"id": "a"}'), (b"b", b'{"id": "b"}')]
    assert [dict(job.headers) for job in sent] == [
        {"trace": b"7", "solstice-replays": b"1"},
        {"trace": b"7", "solstice-replays": b"5"},
    ]


def test_only_complete_dead_letters_of_the_requested_stage_are_sent_back(connection: Connection) -> None:
    jobs, dead = make_topics(connection.brokers, "jobs", "dead")
    put(connection, dead, b"job", headers=letter(jobs, "decode"))
    put(connection, dead, b"jo", headers=letter(jobs, cut="value of 5000000 bytes"))
    put(connection, dead, b"of somebody else")
    put(connection, dead, b"chosen", headers=letter(jobs, replays="not a number"))
    assert back(connection, dead, stage="read") == (1, 3)
    assert [job.value for job in got(connection, jobs)] == [b"chosen"]


def test_a_dead_letter_whose_topic_is_missing_is_an_error_and_kept(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.stream.topics.make_producer", partial(make_producer, max_block_ms=500))
    (dead,) = make_topics(connection.brokers, "dead")
    put(connection, dead, b"job", headers=letter("a-topic-that-nobody-made"))
    with pytest.raises(StopRun, match="did not accept a job"):
        back(connection, dead)
    assert back(connection, dead, dry_run=True) == (1, 0)
