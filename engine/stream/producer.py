"""Send messages to Kafka and wait for their acknowledgements."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kafka.errors import InvalidRecordError, MessageSizeTooLargeError, RecordListTooLargeError

from engine.errors import EngineError
from engine.observe.metrics import Metrics
from engine.stream.client import discard_producer, make_producer
from engine.stream.connection import Connection

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError)
"""Errors of messages that the brokers will never accept."""


@dataclass(slots=True)
class OutgoingMessage:
    """One message to send."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    outcome: int
    """Index of the outcome that it reports."""
    sent: bool = False


class Producer:
    """Sends messages and waits for their acknowledgements; thread-safe.

    The brokers refuse a whole batch for one message in it that is too large, and kafka-python then refuses all others
    that it holds. So each message that was refused as too large is sent again, alone, over a connection of its own.
    """

    def __init__(self, connection: Connection, acknowledge_s: float, metrics: Metrics) -> None:
        """Connect; raises `SetupError`."""
        self._together = RestartingProducer(connection, acknowledge_s, metrics)
        self._alone = RestartingProducer(connection, acknowledge_s, metrics)
        self._one_at_a_time = threading.Lock()
        self._together.connect()

    def send(self, messages: Sequence[OutgoingMessage]) -> list[Exception | None]:
        """Send all and wait for their acknowledgements; returns the error of each, or None."""
        answers = self._together.send(messages)
        return [
            self._send_alone(message) if isinstance(answer, TOO_LARGE) else answer
            for message, answer in zip(messages, answers, strict=True)
        ]

    def close(self, timeout_s: float) -> None:
        """Close the connections."""
        self._together.close(timeout_s)
        self._alone.close(timeout_s)

    def _send_alone(self, message: OutgoingMessage) -> Exception | None:
        with self._one_at_a_time:
            return self._alone.send([message])[0]


class RestartingProducer:
    """A kafka-python producer that is created when needed, and again after an error; thread-safe.

    An idempotent producer whose sequence numbers the brokers have forgotten never recovers by itself.
    """

    def __init__(self, connection: Connection, acknowledge_s: float, metrics: Metrics) -> None:
        self._connection = connection
        self._acknowledge_s = acknowledge_s
        self._metrics = metrics
        self._lock = threading.Lock()
        self._producer: Any = None

    def send(self, messages: Sequence[OutgoingMessage]) -> list[Exception | None]:
        """Send all and wait for their acknowledgements; returns the error of each, or None."""
        try:
            producer = self.connect()
        except EngineError as error:
            return [error] * len(messages)
        futures = [self._start(producer, message) for message in messages]
        answers = [future if isinstance(future, Exception) else self._answer(future) for future in futures]
        if any(answer is not None for answer in answers):
            self._discard(producer)
        return answers

    def close(self, timeout_s: float) -> None:
        """Close the producer, if there is one."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout_s)

    def _start(self, producer: Any, message: OutgoingMessage) -> Any:
        try:
            return producer.send(message.topic, value=message.value, key=message.key, headers=message.headers)
        except Exception as error:  # noqa: BLE001 (treated like an error of the brokers)
            return error

    def _answer(self, future: Any) -> Exception | None:
        try:
            future.get(timeout=self._acknowledge_s)
            return None
        except Exception as error:  # noqa: BLE001 (of any kind: the message is not acknowledged)
            return error

    def connect(self) -> Any:
        """Return the producer; raises `SetupError` when there is none and none can be created."""
        with self._lock:
            if self._producer is None:
                delivery_ms = int(self._acknowledge_s * 1000)
                self._producer = make_producer(
                    self._connection,
                    delivery_timeout_ms=delivery_ms,
                    request_timeout_ms=delivery_ms // 2,
                    max_block_ms=delivery_ms,
                )
            return self._producer

    def _discard(self, producer: Any) -> None:
        with self._lock:
            if self._producer is not producer:
                return  # another thread was faster
            self._producer = None
        self._metrics.count("producer_rebuilds_total")
        threading.Thread(
            target=discard_producer, args=(producer,), daemon=True
        ).start()  # may block despite its time-out
