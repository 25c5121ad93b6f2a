"""Read a topic from one end to the other, and send messages back: what `results` and `replay` do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition

from engine.errors import StopRun
from engine.sinks.kafka import HEADER, REPLAYS
from engine.stream.connection import Connection
from engine.stream.kafka_client import make_consumer, make_producer

_POLL_MS = 200


def follow(connection: Connection, topic: str, *, only_new: bool = False) -> Iterator[dict[str, Any] | None]:
    """Iterate over the results on `topic` without end, from all partitions; None when there is none at the moment."""
    consumer = make_consumer(connection)
    try:
        consumer.assign([TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()])
        if only_new:
            consumer.seek_to_end()
        else:
            consumer.seek_to_beginning()
        while True:
            fetched = consumer.poll(timeout_ms=_POLL_MS)
            for messages in fetched.values():
                for message in messages:
                    yield json.loads(message.value)
            if not fetched:
                yield None
    finally:
        consumer.close(timeout_ms=2000)


def replay(
    connection: Connection, dead_letters: str, group: str, *, stage: str | None, idle_s: float, dry_run: bool
) -> tuple[int, int]:
    """Send dead letters back to the topics that they came from; gives how many, and how many were left out.

    Ends when none has come for `idle_s`. A letter is committed once its job is acknowledged, so that an interrupted
    run goes on where it was. With `stage` only letters that failed there are sent. Raises `StopRun` when a job is not
    acknowledged.
    """
    consumer = make_consumer(connection, dead_letters, group_id=group)
    producer = make_producer(connection)
    sent = left_out = 0
    try:
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
    finally:
        producer.close(5)
        consumer.close(timeout_ms=2000)


def _is_chosen(letter: Any, stage: str | None) -> bool:
    headers = dict(letter.headers)
    whole = HEADER + "topic" in headers and HEADER + "cut" not in headers
    return whole and (stage is None or headers.get(HEADER + "stage") == stage.encode())


def _send_back(producer: Any, letters: list[Any]) -> None:
    futures = []
    for letter in letters:
        headers = dict(letter.headers)
        times = int(headers.get(REPLAYS, b"0")) + 1
        theirs = [(name, value) for name, value in letter.headers if not name.startswith(HEADER)]
        futures.append(
            producer.send(
                headers[HEADER + "topic"].decode(),
                value=letter.value,
                key=letter.key,
                headers=[*theirs, (REPLAYS, str(times).encode())],
            )
        )
    for future in futures:
        try:
            future.get(timeout=60)
        except Exception as error:
            raise StopRun(f"The brokers did not take a job back: {error}; the same command goes on.") from error
