"""Translate jobs from a real broker and check images, results and headers."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from engine import Options, PipelineConfig, Size, convert
from engine.config import GenerateConfig
from engine.stream.connection import Connection
from tests.stream.stream import Stream, photo


def test_images_equal_those_of_convert_for_the_same_photos(stream: Stream, tmp_path: Path) -> None:
    # Given photos of several shapes and formats
    for i, format in enumerate(["JPEG", "PNG", "WEBP", "JPEG", "JPEG", "PNG"]):
        name = f"album/{i}.{format.lower()}"
        stream.submit(id=name, source=stream.add_photo(name, photo(i, 40 + 8 * i, 32, format)), output=name)
    stream.flush()
    # When the stream and `convert` translate them
    worker = stream.worker()
    results = stream.results(6)
    stream.stop(worker)
    config = PipelineConfig(
        options=Options(size=Size.parse("32x32")), generate=GenerateConfig(backend="eager", device="cpu")
    )
    summary = convert(stream.inputs, tmp_path / "converted", stream.model, config)
    # Then the files are identical, and all offsets are committed
    assert summary.converted == 6
    converted = {
        path.relative_to(tmp_path / "converted").as_posix(): path.read_bytes()
        for path in (tmp_path / "converted").rglob("*.*g")
        if ".solstice" not in path.parts
    }
    assert {name: data for name, data in stream.files().items() if name.endswith("g")} == converted
    assert len(stream.files()) == 6
    assert {result["status"] for result in results} == {"done"}
    assert stream.committed() == 6


def test_fields_of_a_result_describe_the_stored_image(stream: Stream) -> None:
    stream.submit(id="x", source=stream.add_photo("x.jpg", photo()), output="sub/x.jpg", size="48x40", quality=80)
    stream.flush()
    worker = stream.worker()
    (result,) = stream.results(1)
    stored = stream.files()["sub/x.jpg"]
    assert result["output"] == (stream.outputs / "sub/x.jpg").as_uri()
    assert (result["width"], result["height"], result["format"]) == (48, 40, "JPEG")
    assert result["bytes"] == len(stored)
    assert result["model"] == "tiny"
    assert result["attempts"] == 1
    assert result["worker"] == worker.name
    assert {"wait", "read", "decode", "generate", "encode", "store"} <= set(result["timings"])


def test_a_message_that_is_an_image_is_a_job_with_its_key_as_id(stream: Stream) -> None:
    stream.send(photo(), key=b"cat/1")
    stream.flush()
    stream.worker()
    (result,) = stream.results(1)
    assert (result["id"], result["status"]) == ("cat/1", "done")
    (name,) = stream.files()
    assert name.startswith("cat%2F1-")


def test_an_inline_job_gets_its_image_in_the_result(stream: Stream) -> None:
    data = base64.b64encode(photo()).decode()
    stream.submit(id="in", source=f"data:image/jpeg;base64,{data}", inline=True)
    stream.flush()
    stream.worker()
    (result,) = stream.results(1)
    assert base64.b64decode(result["data"])[:2] == b"\xff\xd8"
    assert "output" not in result
    assert stream.files() == {}


def test_a_job_delivered_twice_is_answered_from_the_stored_result(stream: Stream) -> None:
    # Given a job that is done
    worker = stream.worker(group=f"{stream.name}-1")
    stream.submit(id="once", source=stream.add_photo("a.jpg", photo()), output="a.jpg")
    stream.flush()
    stream.results(1)
    stream.stop(worker)
    written_ns = (stream.outputs / "a.jpg").stat().st_mtime_ns

    def broken(_: object) -> object:
        raise AssertionError("a duplicate must not be translated")

    # When another group receives the same message, with a generator that must not run
    again = stream.worker({"tiny": broken}, group=f"{stream.name}-2")  # type: ignore[dict-item]
    stream.submit(id="mark", source="data:,no image")
    stream.flush()
    results = stream.results(2)
    stream.stop(again)
    # Then its result is marked as a duplicate, and the file is not written again
    once = [result for result in results if result["id"] == "once"]
    assert [result.get("duplicate", False) for result in once] == [False, True]
    assert once[0]["output"] == once[1]["output"]
    assert (stream.outputs / "a.jpg").stat().st_mtime_ns == written_ns


def test_the_same_id_with_another_photo_is_translated_again(stream: Stream) -> None:
    stream.worker()
    stream.submit(id="x", source=stream.add_photo("x.jpg", photo(1)), output="x.jpg")
    stream.flush()
    stream.results(1)
    first = stream.files()["x.jpg"]
    stream.add_photo("x.jpg", photo(2))
    stream.submit(id="x", source="x.jpg", output="x.jpg")
    stream.submit(id="end", source="x.jpg", output="end.jpg")
    stream.flush()
    results = stream.results(2)
    assert not any(result.get("duplicate") for result in results)
    assert stream.files()["x.jpg"] != first


def test_jobs_choose_among_several_models_while_one_is_kept_in_memory(stream: Stream, tmp_path: Path) -> None:
    from tests.stream.stream import tiny_model

    other = tiny_model(tmp_path / "other.safetensors", seed=1)
    stream.worker(models=(str(stream.model), str(other)), resident_models=1)
    uri = stream.add_photo("x.jpg", photo())
    for i in range(12):
        stream.submit(id=f"{i}", source=uri, model=("tiny", "other")[i % 2], output=f"{i}.jpg")
    stream.flush()
    results = stream.results(12)
    hashes = {result["model"]: result["model_sha256"] for result in results}
    assert len(set(hashes.values())) == 2
    files = stream.files()
    assert len({files[f"{i}.jpg"] for i in range(0, 12, 2)}) == 1
    assert len({files[f"{i}.jpg"] for i in range(1, 12, 2)}) == 1
    assert files["0.jpg"] != files["1.jpg"]


def test_sasl_plain_handshake(stream: Stream) -> None:
    """Covers the handshake only: the broker that tests start accepts any password."""
    stream.worker(
        connection=Connection(brokers=stream.brokers, sasl_mechanism="PLAIN", sasl_user="me", sasl_password="any")
    )
    stream.submit_photos(3)
    assert {result["status"] for result in stream.results(3)} == {"done"}


@pytest.mark.parametrize("megabytes", [5])
def test_messages_of_five_megabytes(stream: Stream, megabytes: int) -> None:
    noise = photo(1, 40, 32, "PNG")
    for i in range(3):  # decoders ignore bytes after the end of a PNG
        stream.send(noise + bytes(megabytes << 20), key=f"big-{i}".encode())
    stream.flush()
    stream.worker(max_in_flight_bytes=8 << 20)
    results = stream.results(3)
    assert [result["status"] for result in results] == ["done"] * 3


def test_results_and_dead_letters_carry_the_headers_and_the_key_of_their_job(stream: Stream) -> None:
    good = {"id": "good", "source": stream.add_photo("x.jpg", photo()), "output": "x.jpg"}
    headers = [("traceparent", b"00-1-2-01"), ("correlation-id", b"\xff"), ("solstice-stage", b"forged")]
    for key, value in ((b"customer-7", json.dumps(good).encode()), (b"customer-8", b"{")):
        stream.send(value, key=key, headers=headers)
    stream.flush()
    stream.worker()
    results = stream.messages(stream.results_topic, 2)
    assert {message.key for message in results} == {b"customer-7", b"customer-8"}
    for message in results:
        assert message.headers == headers[:2]
    (letter,) = stream.dead_letters(1)
    assert letter.headers[:2] == headers[:2]
    assert [value for name, value in letter.headers if name == "solstice-stage"] == [b"job"]
