"""Follow results, replay dead letters, and read a group's committed notes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from engine.errors import SetupError, StopRun
from engine.stream.client import make_consumer, make_producer
from engine.stream.connection import Connection
from engine.stream.sink import CUT, HEADER, REPLAYS

_POLL_MS = 200


def follow(connection: Connection, topic: str, *, only_new: bool = False) -> Iterator[dict[str, Any] | None]:
    """Iterate over the results on all partitions of `topic` without end; None when there is none at the moment.

    Messages that are not results are skipped. Raises `StopRun` when the topic can no longer be read.
    """
    with _as_stop_run(topic), ExitStack() as ending:
        consumer = make_consumer(connection)
        ending.callback(consumer.close, timeout_ms=2000)
        consumer.assign([TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()])
        if only_new:
            consumer.seek_to_end()
        else:
            consumer.seek_to_beginning()
        while True:
            fetched = consumer.poll(timeout_ms=_POLL_MS)
            for messages in fetched.values():
                yield from (result for message in messages if (result := _result(message.value)))
            if not fetched:
                yield None


def replay(
    connection: Connection, dead_letters: str, group: str, *, stage: str | None, idle_s: float, dry_run: bool
) -> tuple[int, int]:
    """Send dead letters back to the topics they came from; returns how many were sent and left out.

    Ends when none has come for `idle_s`. A dead letter is committed once its job is acknowledged, so that the next run
    continues after an interruption. With `stage`, only jobs that failed in it are sent.

    Raises `StopRun` when a job is not acknowledged, or the topic can no longer be read.
    """
    sent = left_out = 0
    with _as_stop_run(dead_letters), ExitStack() as ending:
        consumer = make_consumer(connection, dead_letters, group_id=group)
        ending.callback(consumer.close, timeout_ms=2000)
        producer = make_producer(connection)
        ending.callback(producer.close, 5)
        heard_s = time.monotonic()
        while time.monotonic() - heard_s < idle_s:
            fetched = consumer.poll(timeout_ms=_POLL_MS)
            for messages in fetched.values():
                chosen = [letter for letter in messages if _is_chosen(letter, stage)]
                left_out += len(messages) - len(chosen)
                sent += len(chosen)
                if not dry_run:
                    _send_back(producer, chosen)
            if fetched:
                heard_s = time.monotonic()
                if not dry_run:
                    consumer.commit(
                        {where: OffsetAndMetadata(got[-1].offset + 1, "", -1) for where, got in fetched.items()}
                    )
        return sent, left_out


def committed_notes(connection: Connection, topic: str, group: str) -> list[str]:
    """Return what `group` has committed beside its offset in each partition of `topic`, where there is anything.

    Raises `SetupError` when the brokers cannot be reached.
    """
    consumer = make_consumer(connection, group_id=group)
    try:
        numbers = consumer.partitions_for_topic(topic) or ()
        committed = [consumer.committed(TopicPartition(topic, n), metadata=True, timeout_ms=10_000) for n in numbers]
    except KafkaError as error:
        raise SetupError(f"The offsets of the group {group} cannot be read: {error}.") from error
    finally:
        consumer.close(autocommit=False, timeout_ms=2000)
    return [found.metadata for found in committed if found is not None and found.metadata]


@contextmanager
def _as_stop_run(topic: str) -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise StopRun(f"The topic {topic} cannot be read: {error}; run the same command again to go on.") from error


def _result(value: bytes | None) -> dict[str, Any] | None:
    try:
        result = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    return result if isinstance(result, dict) and {"id", "status"} <= result.keys() else None


def _is_chosen(letter: Any, stage: str | None) -> bool:
    headers = dict(letter.headers)
    whole = HEADER + "topic" in headers and CUT not in headers
    return whole and (stage is None or headers.get(HEADER + "stage") == stage.encode())


def _send_back(producer: Any, letters: list[Any]) -> None:
    try:
        for future in [producer.send(**_job(letter)) for letter in letters]:
            future.get(timeout=60)
    except Exception as error:
        raise StopRun(
            f"The brokers did not accept a job: {error or type(error).__name__}; run the same command again to go on."
        ) from error


def _job(letter: Any) -> dict[str, Any]:
    """Return the original message of a dead letter, with a header that counts its replays."""
    headers = dict(letter.headers)
    before = headers.get(REPLAYS, b"")
    times = int(before) + 1 if before.isdigit() else 1
    theirs = [(name, value) for name, value in letter.headers if not name.startswith(HEADER)]
    return {
        "topic": headers[HEADER + "topic"].decode(),
        "value": letter.value,
        "key": letter.key,
        "headers": [*theirs, (REPLAYS, str(times).encode())],
    }
