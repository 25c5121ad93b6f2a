"""Bad jobs, bad images, bad settings, and an unavailable output."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from kafka.admin import NewTopic
from torch import Tensor

from engine.cli.main import solstice
from engine.errors import SetupError, SkipImage
from engine.stream.client import make_admin, make_consumer, require_topics
from engine.stream.connection import Connection
from tests.stream.stream import Stream, eventually, photo, quiet_environment

BAD_JOBS: dict[str, bytes] = {
    "not json": b'{"id": "x", ',
    "deep": b'{"id": ' + b"[" * 100_000,
    "digits": b'{"id": "x", "source": "x", "size": ' + b"9" * 10_000 + b"}",
    "no id": b'{"source": "a.jpg"}',
    "unknown field": b'{"id": "x", "source": "a.jpg", "colour": "red"}',
    "surrogate": b'{"id": "\\ud800", "source": "a.jpg"}',
    "base64": b'{"id": "x", "source": "data:;base64,@@@@"}',
    "size": b'{"id": "x", "source": "good.jpg", "size": "huge"}',
    "model": b'{"id": "x", "source": "good.jpg", "model": "nobody"}',
    "outside": b'{"id": "x", "source": "file:///etc/passwd"}',
    "dots": b'{"id": "x", "source": "../secret.jpg"}',
    "link": b'{"id": "x", "source": "link.jpg"}',
    "other host": b'{"id": "x", "source": "http://127.0.0.1:1/x.jpg"}',
    "output outside": b'{"id": "x", "source": "good.jpg", "output": "../../x.jpg"}',
    "missing": b'{"id": "x", "source": "missing.jpg"}',
    "pipe": b'{"id": "x", "source": "pipe.jpg"}',
    "broken image": b'{"id": "x", "source": "broken.jpg"}',
    "garbage": b"\x00\x01\x02 no image at all",
}


def test_exactly_the_bad_jobs_become_dead_letters(stream: Stream) -> None:
    # Given bad jobs of every kind among good ones
    stream.add_photo("good.jpg", photo())
    stream.add_photo("broken.jpg", photo()[:200])
    (stream.folder / "secret.jpg").write_bytes(photo())
    (stream.inputs / "link.jpg").symlink_to(stream.folder / "secret.jpg")
    os.mkfifo(stream.inputs / "pipe.jpg")
    for name, value in BAD_JOBS.items():
        stream.send(value, key=name.encode(), headers=[("trace", b"1")])
        stream.submit(id=f"good {name}", source="good.jpg", output=f"{name}.jpg")
    stream.send(None, key=b"tombstone")
    stream.flush()
    # When a worker takes them
    stream.worker()
    letters = stream.dead_letters(len(BAD_JOBS) + 1)
    # Then each bad job is a dead letter with its value, key and context unchanged, and each good one is done
    assert {letter.key.decode(): letter.value for letter in letters} == {**BAD_JOBS, "tombstone": b""}
    assert len(letters) == len(BAD_JOBS) + 1
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["solstice-topic"] == stream.jobs.encode()
        assert headers["solstice-group"] == stream.name.encode()
        assert {"solstice-partition", "solstice-offset", "solstice-stage", "solstice-reason"} <= set(headers)
        assert letter.key == b"tombstone" or headers["trace"] == b"1"
    eventually(lambda: len(stream.files()) == len(BAD_JOBS))
    assert {name.removesuffix(".jpg") for name in stream.files()} == set(BAD_JOBS)
    eventually(lambda: stream.committed() == 2 * len(BAD_JOBS) + 1)


def test_an_image_that_breaks_the_generator_fails_alone(stream: Stream) -> None:
    def fails_on_white(pixels_NHWC: Tensor) -> Tensor:
        if (pixels_NHWC.float().mean(dim=(1, 2, 3)) > 250).any():
            raise RuntimeError("white image")
        return pixels_NHWC

    from engine.observe.metrics import NoMetrics
    from engine.stream.models import RetryOnce

    white = torch.full((32, 32, 3), 255, dtype=torch.uint8)
    from PIL import Image

    Image.fromarray(white.numpy()).save(stream.inputs / "white.png")
    for i in range(6):
        stream.submit(id=f"{i}", source=stream.add_photo(f"{i}.jpg", photo(i)), output=f"{i}.jpg")
    stream.submit(id="white", source="white.png", output="white.png")
    stream.flush()
    stream.worker({"tiny": RetryOnce(fails_on_white, NoMetrics())})
    results = {result["id"]: result["status"] for result in stream.results(7)}
    assert results == {**{f"{i}": "done" for i in range(6)}, "white": "failed"}
    (letter,) = stream.dead_letters(1)
    assert dict(letter.headers)["solstice-stage"] == b"generate"


def test_an_inline_result_over_the_limit_is_a_dead_letter(stream: Stream) -> None:
    stream.submit(id="x", source=stream.add_photo("x.jpg", photo()), inline=True)
    stream.flush()
    stream.worker(inline_limit=100)
    (letter,) = stream.dead_letters(1)
    assert b"over the limit of 100" in dict(letter.headers)["solstice-reason"]


def test_only_the_result_over_the_topics_message_limit_is_a_dead_letter(stream: Stream) -> None:
    # Given a results topic whose message limit is below --inline-limit
    admin = make_admin(stream.connection)
    small = f"{stream.name}-small"
    admin.create_topics([NewTopic(small, 1, 1, topic_configs={"max.message.bytes": "20000"})])
    admin.close()
    # When the inline results are over it together, and one of them alone
    for i in range(12):
        size = "320x320" if i == 5 else "64x64"
        stream.submit(id=f"{i}", source=stream.add_photo(f"{i}.jpg", photo(i, 320, 320)), inline=True, size=size)
    stream.flush()
    worker = stream.worker(results=small)
    # Then only that one fails, with the reason
    status = {result["id"]: result["status"] for result in stream.results(12, topic=small)}
    assert status == {f"{i}": "failed" if i == 5 else "done" for i in range(12)}
    (letter,) = stream.dead_letters(1)
    assert dict(letter.headers)["solstice-reason"] == b"its result is larger than the brokers take"
    stream.stop(worker)
    assert stream.committed() == 12


def test_too_many_failures_stop_the_worker_without_committing_past_them(stream: Stream) -> None:
    for i in range(40):
        stream.send(b"{", key=f"{i}".encode())
    stream.flush()
    process = stream.process("--max-dead-letters", "10", wait=False)
    assert process.wait(60) == 2
    log = stream.log().read_text()
    assert "11 jobs in a row failed" in log
    assert "Traceback" not in log
    assert stream.committed() <= 10


def test_an_unavailable_output_pauses_the_worker_and_no_job_is_lost(stream: Stream) -> None:
    worker = stream.worker(max_in_flight=16)
    eventually(lambda: worker.health.missing() == [])
    hidden = stream.folder / "unplugged"
    stream.outputs.rename(hidden)
    ids = stream.submit_photos(60)
    eventually(lambda: worker.health.missing() == ["sink"])
    time.sleep(1)
    assert worker.health.silent() == []
    assert stream.committed() == 0
    hidden.rename(stream.outputs)
    results = stream.results(60)
    assert sorted(result["id"] for result in results) == sorted(ids)
    assert {result["status"] for result in results} == {"done"}
    eventually(lambda: worker.health.missing() == [])


def test_the_grace_period_limits_a_drain_whose_output_is_unavailable(stream: Stream) -> None:
    process = stream.process("--grace", "1")
    (stream.outputs).rename(stream.folder / "unplugged")
    stream.submit_photos(5)
    eventually(lambda: b"takes no results" in (stream.folder / "0-worker.log").read_bytes())
    process.terminate()
    assert process.wait(30) in (1, 2)
    assert stream.committed() == 0


@pytest.fixture
def same_logging() -> Iterator[None]:
    """Restore logging afterwards, since a service configures it for the whole process."""
    root, handlers = logging.getLogger(), list(logging.getLogger().handlers)
    levels = {name: logging.getLogger(name).level for name in ("", "engine", "kafka")}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.usefixtures("same_logging", "impatient")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--jobs", "nowhere"], "There is no topic nowhere"),
        (["--tls"], "TLS port"),
        (["--model", "nobody"], "no model named nobody"),
        (["--input-root", "/does/not/exist"], "is not a folder"),
        (["--tls-ca", "/etc/hostname"], "The TLS files cannot be used"),
        (["--sasl-mechanism", "PLAIN", "--sasl-user", "me"], "SASL needs"),
        (
            ["--sasl-mechanism", "SCRAM-SHA-256", "--sasl-user", "me", "--sasl-password-file", "/etc/hostname"],
            "refuses",
        ),
    ],
)
def test_bad_settings_stop_the_start_with_a_sentence(stream: Stream, options: list[str], sentence: str) -> None:
    result = CliRunner().invoke(solstice, ["stream", *arguments(stream, options)])
    assert isinstance(result.exception, SetupError)
    assert sentence in str(result.exception)


def test_a_failed_start_writes_one_sentence_and_exits_with_2(stream: Stream) -> None:
    command = [sys.executable, "-m", "engine", "stream", *arguments(stream, ["--brokers", "127.0.0.1:1"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=quiet_environment(), check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("solstice: Nothing listens at 127.0.0.1:1")
    assert len(done.stderr.splitlines()) == 1


def arguments(stream: Stream, options: list[str]) -> list[str]:
    """Return the options that a worker needs; `options` replace those of the same name."""
    given = {
        "--brokers": stream.brokers,
        "--jobs": stream.jobs,
        "--model": str(stream.model),
        "--input-root": str(stream.inputs),
        "--results": stream.results_topic,
        "--dead-letters": stream.dead_topic,
        "--group": "g",
        "--output-root": str(stream.outputs),
    }
    return [*options, *(word for name, value in given.items() if name not in options for word in (name, value))]


@pytest.mark.usefixtures("impatient")
def test_a_port_that_accepts_but_never_answers_is_explained() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(SetupError, match="does not answer as Kafka does"):
            make_consumer(Connection(brokers=f"127.0.0.1:{silent.getsockname()[1]}"))


def test_repr_of_a_connection_hides_the_password() -> None:
    connection = Connection(brokers="b:1", sasl_mechanism="PLAIN", sasl_user="me", sasl_password="secret")
    assert "secret" not in repr(connection)


def test_missing_topics_are_created_on_request_only(stream: Stream) -> None:
    name = f"{stream.name}-new"
    with pytest.raises(SetupError, match="--create-topics"):
        require_topics(stream.connection, [name])
    require_topics(stream.connection, [name], 3)
    require_topics(stream.connection, [name])


def test_output_names_cannot_leave_the_output_root(tmp_path: Path) -> None:
    from engine.stream.outputs import Output

    output = Output(str(tmp_path / "out"))
    (tmp_path / "out" / "way").symlink_to(tmp_path)
    for name in ("way/x.jpg", "/x.jpg", "a//b.jpg", "../x.jpg", ".solstice/x.jpg", "a\0.jpg", "a" * 300 + ".jpg"):
        with pytest.raises(SkipImage):
            output.write(name, b"x")
    assert not (tmp_path / "x.jpg").exists()
