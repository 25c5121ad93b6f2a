"""Send messages to Kafka and wait for their acknowledgements."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kafka.errors import InvalidRecordError, MessageSizeTooLargeError, RecordListTooLargeError

from engine.errors import EngineError
from engine.observe.metrics import Metrics
from engine.stream.client import make_producer
from engine.stream.connection import Connection

_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError)


@dataclass(slots=True)
class Letter:
    """One message to send."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    outcome: int
    """Index of the outcome that it tells."""
    sent: bool = False


class Producer:
    """Sends messages and waits for their acknowledgements; safe for several threads.

    A message that is larger than the brokers take makes them refuse its whole batch, and then kafka-python refuses
    whatever else it was given. So all that was refused as too large is sent once more, each alone over a connection of
    its own, before that is believed of it.
    """

    def __init__(self, connection: Connection, acknowledge_s: float, metrics: Metrics) -> None:
        """Connect; raises `SetupError`."""
        self._together = _Line(connection, acknowledge_s, metrics)
        self._alone = _Line(connection, acknowledge_s, metrics)
        self._one_at_a_time = threading.Lock()
        self._together.connect()

    def send(self, letters: Sequence[Letter]) -> list[Exception | None]:
        """Send all and wait for their acknowledgements; gives for each what went wrong, or None."""
        answers = self._together.send(letters)
        return [
            self._send_alone(letter) if isinstance(answer, _TOO_LARGE) else answer
            for letter, answer in zip(letters, answers, strict=True)
        ]

    def close(self, timeout_s: float) -> None:
        """Close what is open."""
        self._together.close(timeout_s)
        self._alone.close(timeout_s)

    def _send_alone(self, letter: Letter) -> Exception | None:
        with self._one_at_a_time:
            return self._alone.send([letter])[0]


class _Line:
    """A kafka-python producer that is made when it is needed, and anew after an error; safe for several threads.

    An idempotent producer whose sequence numbers the brokers no longer know never recovers by itself.
    """

    def __init__(self, connection: Connection, acknowledge_s: float, metrics: Metrics) -> None:
        self._connection = connection
        self._acknowledge_s = acknowledge_s
        self._metrics = metrics
        self._lock = threading.Lock()
        self._producer: Any = None

    def send(self, letters: Sequence[Letter]) -> list[Exception | None]:
        """Send all and wait for their acknowledgements; gives for each what went wrong, or None."""
        try:
            producer = self.connect()
        except EngineError as error:
            return [error] * len(letters)
        futures = [self._start(producer, letter) for letter in letters]
        answers = [future if isinstance(future, Exception) else self._answer(future) for future in futures]
        if any(answer is not None for answer in answers):
            self._discard(producer)
        return answers

    def close(self, timeout_s: float) -> None:
        """Close it, if there is one."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout_s)

    def _start(self, producer: Any, letter: Letter) -> Any:
        try:
            return producer.send(letter.topic, value=letter.value, key=letter.key, headers=letter.headers)
        except Exception as error:  # noqa: BLE001 (as for those that are answered later)
            return error

    def _answer(self, future: Any) -> Exception | None:
        try:
            future.get(timeout=self._acknowledge_s)
            return None
        except Exception as error:  # noqa: BLE001 (whatever it is, this message is not acknowledged)
            return error

    def connect(self) -> Any:
        """Give the producer; raises `SetupError` when there is none and none can be made."""
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
        threading.Thread(target=_give_up, args=(producer,), daemon=True).start()  # may block although told not to


def _give_up(producer: Any) -> None:
    with suppress(Exception):  # it raises once more what it was given up for
        producer.close(0)
