"""Clients of Kafka, their errors as sentences, and all calls into private parts of kafka-python."""

from __future__ import annotations

import itertools
import logging
import os
import selectors
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic
from kafka.consumer.fetcher import Fetcher
from kafka.coordinator.base import MemberState
from kafka.errors import KafkaError, TopicAlreadyExistsError

from engine.errors import SetupError
from engine.stream.connection import BOOTSTRAP_S, Connection

T = TypeVar("T")

_count = itertools.count()
_one_at_a_time = threading.Lock()  # log records are captured from a logger that all clients share

MAX_REQUEST_BYTES = 64 << 20
"""Limit of the client, well above the brokers' own, which is usually 1 MiB."""


class QuickSelector(selectors.DefaultSelector):
    """A selector that says cheaply that a socket is not registered.

    kafka-python asks before each wait for a socket, and the answer of Python's own is an error with the addresses of
    both ends in it: two system calls, a sixth of the time of a busy producer's thread.
    """

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Return the key of a registered file; raises `KeyError`."""
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if number < 0:  # closed, but perhaps registered before
            return super().get_key(fileobj)
        keys: Mapping[int, selectors.SelectorKey] = self._fd_to_key  # type: ignore[attr-defined]  # private
        return keys[number]


class UndecodableBatch(Exception):
    """A batch of messages that this client cannot decode: unknown codec, wrong checksum, damaged."""

    def __init__(self, topic: str, partition: int, first: int, after: int | None, cause: Exception) -> None:
        where = f"partition {partition} of {topic}, "
        where += f"offset {first}" if after is None else f"offsets {first} to {after - 1}"
        super().__init__(f"{where}: {str(cause) or type(cause).__name__}")
        self.topic, self.partition, self.first = topic, partition, first
        self.after = after
        """Offset after the batch; None when the batch does not reveal it."""


def make_consumer(connection: Connection, *topics: str, **settings: Any) -> Any:
    """Connect a `KafkaConsumer` without automatic commits; raises `SetupError` with the cause."""
    settings = {
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "allow_auto_create_topics": False,
        "receive_message_max_bytes": 200_000_000,
        **settings,
    }
    consumer = _connected(connection, lambda common: KafkaConsumer(*topics, **{**common, **settings}))
    consumer._fetcher.PartitionRecords = _CheckedRecords
    return consumer


def make_producer(connection: Connection, **settings: Any) -> Any:
    """Connect an idempotent `KafkaProducer` that waits for all replicas; raises `SetupError` with the cause."""
    settings = {
        "acks": "all",
        "allow_auto_create_topics": False,
        "max_request_size": MAX_REQUEST_BYTES,
        "max_block_ms": 10_000,
        "delivery_timeout_ms": 30_000,
        # The default of 16 KiB would make a request of every message with an image in it.
        "batch_size": 512 << 10,
        "linger_ms": 2,
        **settings,
    }
    return _connected(connection, lambda common: KafkaProducer(**{**common, **settings}))


def make_admin(connection: Connection) -> Any:
    """Connect a `KafkaAdminClient`; raises `SetupError` with the cause."""
    return _connected(connection, lambda common: KafkaAdminClient(**common))


class _CheckedRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python is untyped
    """Raise `UndecodableBatch` from `poll` for as long as a partition's next batch cannot be decoded.

    kafka-python raises the cause once, without the offsets, and then never returns from `poll`.
    """

    _undecodable: UndecodableBatch | None = None

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[Any]:
        batches = _Batches(records)
        try:
            yield from super()._unpack_records(tp, batches, *deserializers)
        except Exception as error:
            first, after = int(self.next_fetch_offset), batches.offset_after
            if after is not None and after <= first:  # a damaged header
                after = None
            self._undecodable = UndecodableBatch(tp.topic, tp.partition, first, after, error)
            raise self._undecodable from error

    def take(self, n: int | None = None) -> Any:
        """Return up to `n` records; raises `UndecodableBatch` when there are none before such a batch."""
        records = super().take(n)
        if not records and self._undecodable is not None:
            raise self._undecodable
        return records


class _Batches:
    """The batches of a fetch, and the offset after the current one."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.offset_after: int | None = None

    def next_batch(self) -> Any:
        """Return the next batch, or None."""
        self.offset_after = None
        batch = self._records.next_batch()
        if batch is not None and batch.magic == 2:
            self.offset_after = int(batch.next_offset)
        return batch


def topic_id(consumer: Any, topic: str) -> object:
    """Return the id of a topic, which changes when it is created anew; None from brokers before Kafka 2.8.

    kafka-python has no public call for it.
    """
    return consumer._cluster.topic_id(topic)


def rebalance_sleep(consumer: Any, seconds: float) -> Awaitable[None]:
    """Return an awaitable that sleeps inside a rebalance listener, in the event loop of `consumer`.

    kafka-python has no public call for it.
    """
    sleeping: Awaitable[None] = consumer._coordinator._net.sleep(seconds)
    return sleeping


def poll_member(consumer: Any, timeout_ms: int) -> Any:
    """Poll a member of a group, and finish a join that an earlier poll has begun.

    A leader joins again when the metadata of its topics have changed. If that join completes between two polls,
    kafka-python finds the metadata unchanged at the next one and never takes the assignment: the member would stay
    without partitions and without heartbeats. There is no public call for it.
    """
    coordinator = consumer._coordinator
    if coordinator.rejoining and not coordinator.rejoin_needed:
        coordinator.request_rejoin()
    return consumer.poll(timeout_ms=timeout_ms)


def close_member(consumer: Any, timeout_ms: int) -> None:
    """Close `consumer` and leave its group, also when the group has gone on without it (IllegalGenerationError).

    kafka-python keeps the member's id then, for joining again, but does not send that it leaves: the group would wait
    for this member until its session times out. There is no public call for it.
    """
    coordinator = consumer._coordinator
    with coordinator._lock:
        if coordinator.state is MemberState.UNJOINED and coordinator._generation.has_member_id():
            coordinator.state = MemberState.REBALANCING
    consumer.close(autocommit=False, timeout_ms=timeout_ms)


def discard_producer(producer: Any) -> None:
    """Close a producer without sending its pending messages, which have been reported as failed; may block.

    With pending messages `close` alone raises and leaves the sender's thread and connections. There is no public call
    that drops them.
    """
    producer._sender.force_close()
    producer._sender.join()
    with suppress(Exception):  # the error for which it is discarded, again
        producer.close(0)


def require_topics(connection: Connection, topics: Sequence[str], create_partitions: int | None = None) -> None:
    """Raise `SetupError` when one of `topics` is missing, or create it with `create_partitions` partitions."""
    admin = make_admin(connection)
    try:
        there = set(admin.list_topics())
        missing = [topic for topic in dict.fromkeys(topics) if topic not in there]
        if missing and create_partitions is None:
            raise SetupError(
                f"There is no topic {' and no topic '.join(missing)} at {connection.brokers}; "
                "create it, or pass --create-topics N to create it with N partitions."
            )
        for topic in missing:
            with suppress(TopicAlreadyExistsError):  # another worker was faster
                admin.create_topics([NewTopic(topic, create_partitions, -1)])
    except KafkaError as error:
        raise SetupError(f"The topics at {connection.brokers} cannot be listed or created: {error}.") from error
    finally:
        admin.close()


def _connected(connection: Connection, make: Callable[[dict[str, Any]], T]) -> T:
    client_id = f"solstice-{os.getpid()}-{next(_count)}"
    settings = {**connection.settings(), "client_id": client_id, "selector": QuickSelector}
    with _one_at_a_time, _captured_log(client_id) as logged:
        try:
            return make(settings)
        except KafkaError as error:
            raise SetupError(explain(connection, [*logged, f"{type(error).__name__}: {error}"])) from error
        except (ValueError, OSError) as error:
            raise SetupError(f"{connection.brokers} cannot be used: {error}.") from error


def explain(connection: Connection, logged: Sequence[str]) -> str:
    """Return one sentence with the cause and what to do, from what kafka-python logged while connecting."""
    where, text = connection.brokers, "\n".join(logged)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        why = text.split("certificate verify failed:", 1)[-1].split("(_ssl", 1)[0].strip() or "unknown authority"
        return f"The certificate of {where} is not trusted ({why}); pass its certificate authority with --tls-ca."
    if "certificate required" in text.lower() or "TLSV13_ALERT_CERTIFICATE_REQUIRED" in text:
        return f"{where} asks for a client certificate; pass it with --tls-cert and --tls-key."
    if any(word in text for word in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF", "RECORD_LAYER_FAILURE", "SSLError")):
        return f"{where} does not use TLS; leave out the TLS options, or use its TLS port."
    if any(word in text for word in ("SaslAuthentication", "SaslHandshake", "UnsupportedSasl", "IllegalSasl")):
        return f"{where} refuses the SASL user, password or mechanism {connection.sasl_mechanism}."
    if any(word in text for word in ("ECONNREFUSED", "Connection refused", "Connect call failed")):
        return f"Nothing listens at {where}; start the broker, or pass another with --brokers."
    if any(word in text for word in ("DNS", "getaddrinfo", "Name or service", "name resolution")):
        return f"The host name in {where} is unknown; check --brokers."
    if connection.sasl_mechanism:
        return f"{where} closes the connection or does not answer; check the SASL options and whether it wants TLS."
    hint = "check that it is a Kafka TLS port" if connection.uses_tls else "if it wants TLS, add --tls or --tls-ca"
    return f"{where} does not answer as Kafka does within {BOOTSTRAP_S:.0f} s; {hint}."


@contextmanager
def _captured_log(client_id: str) -> Iterator[list[str]]:
    """Capture what kafka-python logs of one client: only there is the cause of a failed connection."""
    logged: list[str] = []
    caller = threading.get_ident()  # a producer connects in it, the others in a thread of their own

    class LogCapture(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == caller or record.threadName == f"kafka-io-{client_id}":
                logged.append(record.getMessage())

    logger, capture = logging.getLogger("kafka"), LogCapture(logging.WARNING)
    propagated, level = logger.propagate, logger.level
    logger.addHandler(capture)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    try:
        yield logged
    finally:
        logger.removeHandler(capture)
        logger.propagate = propagated
        logger.setLevel(level)
