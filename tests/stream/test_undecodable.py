"""Record batches that the Kafka client cannot decode."""

from __future__ import annotations

import json

import kafka.codec
import pytest
from kafka import KafkaProducer

from tests.stream.stream import Stream, eventually, photo


def send(stream: Stream, codec: str | None, partition: int, *names: str) -> None:
    """Send one record batch, compressed with `codec`, that holds a job for each name."""
    producer = KafkaProducer(bootstrap_servers=stream.brokers, compression_type=codec, linger_ms=200)
    for name in names:
        job = {"id": name, "source": stream.add_photo(f"{name}.jpg", photo()), "output": f"{name}.jpg"}
        producer.send(stream.jobs, value=json.dumps(job).encode(), key=name.encode(), partition=partition)
    producer.flush()
    producer.close(2)


def test_all_compression_codecs_are_decoded(stream: Stream) -> None:
    codecs = ("gzip", "snappy", "lz4", "zstd")
    for partition, codec in enumerate(codecs):
        send(stream, codec, partition, *(f"{codec}-{i}" for i in range(3)))
    stream.worker()
    results = stream.results(12)
    assert {result["id"] for result in results} == {f"{codec}-{i}" for codec in codecs for i in range(3)}
    assert {result["status"] for result in results} == {"done"}


def test_an_undecodable_batch_stops_the_worker_after_the_jobs_before_it(stream: Stream) -> None:
    # Given a client that cannot decode one of the batches
    send(stream, None, 0, "a", "b", "c")
    send(stream, "snappy", 0, "d", "e")
    send(stream, None, 0, "f")
    process = stream.process(change="import kafka.codec; kafka.codec.has_snappy = lambda: False", wait=False)
    # Then the worker stops and names topic, partition, offsets, cause and remedy
    assert process.wait(60) == 2
    log = stream.log().read_text()
    assert f"Messages cannot be decoded: partition 0 of {stream.jobs}, offsets 3 to 4: UnsupportedCodecError" in log
    assert "--skip-undecodable" in log
    assert "Traceback" not in log
    # And the jobs before the batch are done and committed
    assert set(stream.files()) == {"a.jpg", "b.jpg", "c.jpg"}
    assert stream.committed() == 3


def test_skip_undecodable_sends_one_dead_letter_for_the_batch(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    send(stream, None, 0, "a", "b")
    send(stream, "snappy", 0, "c", "d", "e")
    send(stream, None, 0, "f")
    send(stream, None, 1, "g")
    monkeypatch.setattr(kafka.codec, "has_snappy", lambda: False)
    stream.worker(skip_undecodable=True)
    results = stream.results(5)
    assert {result["id"] for result in results if result["status"] == "done"} == {"a", "b", "f", "g"}
    (letter,) = stream.dead_letters(1)
    headers = dict(letter.headers)
    assert f"partition 0 of {stream.jobs}, offsets 2 to 4: UnsupportedCodecError".encode() in headers["solstice-reason"]
    assert "solstice-cut" in headers, "replay must skip it"
    eventually(lambda: stream.committed() == 7)
