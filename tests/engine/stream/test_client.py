"""Why a broker cannot be reached is told of this client, whatever others have to say meanwhile."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from engine.errors import SetupError
from engine.stream.client import explain, make_admin, make_consumer, make_producer
from engine.stream.connection import Connection


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a client give up soon."""
    monkeypatch.setattr("engine.stream.connection.BOOTSTRAP_S", 0.5)


@pytest.fixture
def silent() -> Iterator[str]:
    """Give the address of somebody who takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("make", [make_consumer, make_producer, make_admin])
def test_each_kind_of_client_says_that_nobody_listens(make: Any) -> None:
    with pytest.raises(SetupError, match=r"Nothing listens at 127\.0\.0\.1:1"):
        make(Connection(brokers="127.0.0.1:1"))


@pytest.mark.usefixtures("hurried")
def test_the_trouble_of_another_client_is_not_taken_for_its_own(silent: str) -> None:
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
def test_logging_is_afterwards_as_it_was(silent: str) -> None:
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
        ("[SSL: WRONG_VERSION_NUMBER]", "does not answer in TLS"),
        ("SaslAuthenticationFailedError", "refuses the SASL"),
        ("[Errno -2] Name or service not known", "is not known"),
        ("Connection reset by peer", "if it wants TLS"),
    ],
)
def test_every_cause_has_its_sentence(said: str, sentence: str) -> None:
    told = explain(Connection(brokers="b:1"), ["Bootstrap failed", said])
    assert sentence in told
    assert told.endswith(".")
    assert "\n" not in told
