"""Lag of the assigned partitions and reachability of the brokers, measured apart from the consumer group."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from engine.errors import EngineError
from engine.observe.health import Health
from engine.observe.metrics import Metrics
from engine.stream.client import make_consumer
from engine.stream.connection import Connection
from engine.stream.partitions import Where

log = logging.getLogger(__name__)

CONDITION = "brokers"
_TIMEOUT_MS = 5000


class LagMeter:
    """Asks the brokers for end offsets at an interval, whatever the member of the group does meanwhile.

    Uses a connection and a thread of its own: fetching may be paused, and kafka-python's consumer is not thread-safe.
    """

    def __init__(
        self,
        connection: Connection,
        positions: Callable[[], Mapping[Where, int]],
        metrics: Metrics,
        health: Health,
        interval_s: float,
    ) -> None:
        """`positions` returns the first unfinished offset of each assigned partition."""
        self._connection = connection
        self._positions = positions
        self._metrics = metrics
        self._health = health
        self._interval_s = interval_s
        self._closing = threading.Event()
        self._consumer: Any = None
        self._reported: set[Where] = set()
        self.reachable = True
        """Whether the brokers answered the last time."""
        self._thread = threading.Thread(target=self._run, name="lag", daemon=True)

    def start(self) -> None:
        """Start measuring."""
        self._thread.start()

    def close(self) -> None:
        """Stop measuring; does not wait for brokers that are away."""
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._measure()
            except (KafkaError, EngineError) as error:
                self._report_brokers(str(error) or type(error).__name__)
                self._discard()
            else:
                self._report_brokers(None)
            self._closing.wait(self._interval_s)
        self._discard()

    def _measure(self) -> None:
        if self._consumer is None:
            self._consumer = make_consumer(self._connection)
        positions = dict(self._positions())
        partitions = [TopicPartition(*where) for where in positions]
        # Without partitions any request shows whether the brokers answer.
        ends = self._consumer.end_offsets(partitions, timeout_ms=_TIMEOUT_MS) if partitions else self._consumer.topics()
        for _, partition in self._reported - set(positions):
            self._metrics.forget("lag_jobs", str(partition))
        for where, position in positions.items():
            self._metrics.gauge("lag_jobs", max(0, ends[TopicPartition(*where)] - position), str(where[1]))
        self._reported = set(positions)

    def _report_brokers(self, error: str | None) -> None:
        if error is not None and self.reachable:
            log.warning("The brokers do not answer: %s", error)
        self.reachable = error is None
        self._health.require(CONDITION, self.reachable, f"the brokers do not answer: {error}")

    def _discard(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                consumer.close(autocommit=False, timeout_ms=500)
            except Exception as error:  # noqa: BLE001 (it is discarded because it does not work)
                log.debug("Closing a consumer failed: %s", error)
