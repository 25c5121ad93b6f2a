"""Sentences for connection errors, and calls of kafka-python's private parts."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import AsyncConsumerRebalanceListener, TopicPartition

from engine.errors import SetupError
from engine.stream.client import (
    QuickSelector,
    explain,
    make_admin,
    make_consumer,
    make_producer,
    rebalance_sleep,
    topic_id,
)
from engine.stream.connection import Connection
from engine.system.versions import installed
from tests import ROOT
from tests.stream.brokers import tansu
from tests.stream.stream import eventually, make_topics


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the time limit for connecting."""
    monkeypatch.setattr("engine.stream.connection.BOOTSTRAP_S", 0.5)


@pytest.fixture
def silent() -> Iterator[str]:
    """Return the address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("make", [make_consumer, make_producer, make_admin])
def test_every_kind_of_client_reports_a_closed_port(make: Any) -> None:
    with pytest.raises(SetupError, match=r"Nothing listens at 127\.0\.0\.1:1"):
        make(Connection(brokers="127.0.0.1:1"))


@pytest.mark.usefixtures("hurried")
def test_errors_of_another_client_are_not_reported_as_its_own(silent: str) -> None:
    calm = threading.Event()

    def complain() -> None:
        while not calm.wait(0.02):
            logging.getLogger("kafka.net").error("Connection failed: 111 ECONNREFUSED")

    other = threading.Thread(target=complain, name="kafka-io-somebody-else")
    other.start()
    try:
        with pytest.raises(SetupError, match="does not answer as Kafka does"):
            make_consumer(Connection(brokers=silent))
    finally:
        calm.set()
        other.join()


@pytest.mark.usefixtures("hurried")
def test_logging_is_restored_afterwards(silent: str) -> None:
    logger = logging.getLogger("kafka")
    before = (logger.level, logger.propagate, list(logger.handlers))
    threads = [threading.Thread(target=refused, args=(silent,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def refused(brokers: str) -> None:
    with pytest.raises(SetupError):
        make_admin(Connection(brokers=brokers))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get issuer (_ssl.c:1)",
            "unable to get",
        ),
        ("tlsv13 alert certificate required", "--tls-cert and --tls-key"),
        ("[SSL: WRONG_VERSION_NUMBER]", "does not use TLS"),
        ("SaslAuthenticationFailedError", "refuses the SASL"),
        ("[Errno -2] Name or service not known", "is unknown"),
        ("Connection reset by peer", "if it wants TLS"),
    ],
)
def test_every_cause_of_a_failed_connection_has_its_sentence(said: str, sentence: str) -> None:
    told = explain(Connection(brokers="b:1"), ["Bootstrap failed", said])
    assert sentence in told
    assert told.endswith(".")
    assert "\n" not in told


def test_the_installed_kafka_python_is_one_whose_private_parts_were_reviewed() -> None:
    """When this fails, review the private calls in `engine.stream.client` before raising the bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (bounds,) = [found for line in project["dependencies"] if (found := re.match(r"kafka-python>=(.+),<(.+)", line))]
    version, low, high = (
        tuple(int(part) for part in text.split(".")) for text in (installed("kafka-python"), *bounds.groups())
    )
    assert low <= version < high


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a broker whose topics have ids, and return its address."""
    with tansu(tmp_path_factory.mktemp("tansu") / "log") as address:
        yield address


def test_private_calls_of_the_consumer_work(brokers: str) -> None:
    (topic,) = make_topics(brokers, "jobs")
    slept_s: list[float] = []

    class Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]
        async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None: ...

        async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
            started_s = time.monotonic()
            await rebalance_sleep(consumer, 0.1)
            slept_s.append(time.monotonic() - started_s)

    consumer = make_consumer(Connection(brokers=brokers), group_id=topic, session_timeout_ms=6000)
    try:
        consumer.subscribe([topic], listener=Listener())
        eventually(
            lambda: bool(consumer.poll(timeout_ms=10_000)) or bool(slept_s)
        )  # it joins the group only while it polls
        assert slept_s[0] >= 0.09
        assert topic_id(consumer, topic) is not None
        assert topic_id(consumer, "unknown") is None
    finally:
        consumer.close(autocommit=False, timeout_ms=1000)


def test_no_other_module_uses_private_parts_of_kafka_python() -> None:
    private = re.compile(r"(consumer|producer|admin|raw)\._[a-z]")
    found = [
        path.name
        for path in sorted(Path(ROOT / "engine" / "stream").glob("*.py"))
        if path.name != "client.py" and private.search(path.read_text())
    ]
    assert found == []


def test_the_selector_answers_as_that_of_python_does_without_asking_the_socket() -> None:
    class Counted(socket.socket):
        asked = 0

        def getsockname(self) -> Any:
            Counted.asked += 1
            return super().getsockname()

    with QuickSelector() as selector, Counted() as one, Counted() as other:
        key = selector.register(one, 1, "data")
        assert selector.get_key(one) == selector.get_key(one.fileno()) == key
        for unknown in (other, other.fileno()):
            with pytest.raises(KeyError):
                selector.get_key(unknown)
        number = one.fileno()
        one.close()
        assert selector.get_key(one).fd == number, "as Python's own: a closed file is found by its identity"
    assert Counted.asked == 0
