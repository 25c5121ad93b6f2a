"""The producer of results: it is replaced after an error."""

from __future__ import annotations

from pathlib import Path

from engine.observe.metrics import NoMetrics
from engine.stream.connection import Connection
from engine.stream.producer import OutgoingMessage, RestartingProducer
from tests.stream.brokers import noida
from tests.stream.stream import eventually, make_topics


def test_a_replaced_producer_with_pending_messages_ends_its_thread(tmp_path: Path) -> None:
    # Given a producer that has sent a message, and whose broker is killed
    with noida(tmp_path / "noida") as address:
        (topic,) = make_topics(address, "results")
        message = OutgoingMessage(topic, None, b"{}", [], outcome=0)
        producer = RestartingProducer(Connection(brokers=address), 1.0, NoMetrics())
        assert producer.send([message]) == [None]
        sender = producer.connect()._sender
    # When the next message cannot be sent
    (error,) = producer.send([message])
    # Then nothing of the producer is left
    assert error is not None
    eventually(lambda: not sender.is_alive(), 20)
