"""Sources and outputs of a worker: buckets, web servers, slow and unavailable outputs."""

from __future__ import annotations

import time
import urllib.request
import uuid
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from engine.stream.outputs import Output
from tests.stream.brokers import free_port
from tests.stream.stream import Stream, eventually, photo

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*", "ignore::ResourceWarning")


class Store:
    """An S3 server (moto) that can be stopped and started again without losing its objects."""

    def __init__(self) -> None:
        self.port = free_port()
        self.name = f"bucket-{uuid.uuid4().hex[:10]}"
        self.come()
        self.bucket: Any = boto3.resource("s3", endpoint_url=f"http://127.0.0.1:{self.port}").create_bucket(
            Bucket=self.name
        )

    def come(self) -> None:
        """Start the server."""
        self._server = ThreadedMotoServer("127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def go(self) -> None:
        """Stop the server; its objects stay in memory."""
        self._server.stop()

    def results(self, prefix: str) -> dict[str, bytes]:
        """Return every object below `prefix` except the worker's own records."""
        objects = [item for item in self.bucket.objects.filter(Prefix=prefix) if "/.solstice/" not in item.key]
        return {item.key.removeprefix(prefix): item.get()["Body"].read() for item in objects}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # the worker has retries of its own
    made = Store()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
    file_system: Any = fsspec.get_filesystem_class("s3")
    file_system.clear_instance_cache()  # instances of other tests point to stopped servers
    yield made
    made.go()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """URL of a web server for the folder `web` of the test."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    (tmp_path / "web").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web")))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_read_from_a_bucket_and_a_web_server_and_write_to_a_bucket(
    stream: Stream, store: Store, web: str, tmp_path: Path
) -> None:
    # Given photos inside and outside of input roots of both kinds
    roots = (f"s3://{store.name}/in", f"{web}/photos")
    for key in ("in/a.jpg", "secret/a.jpg"):
        store.bucket.put_object(Key=key, Body=photo(1))
    for path in ("photos/b.jpg", "secret/b.jpg"):
        (tmp_path / "web" / path).parent.mkdir()
        (tmp_path / "web" / path).write_bytes(photo(2))
    good = {"s3": f"{roots[0]}/a.jpg", "relative": "a.jpg", "http": f"{roots[1]}/b.jpg"}
    bad = {
        "s3 beside": f"s3://{store.name}/secret/a.jpg",
        "s3 out": f"{roots[0]}/../secret/a.jpg",
        "s3 missing": "missing.jpg",
        "http beside": f"{web}/secret/b.jpg",
        "http out": f"{roots[1]}/%2e%2e/secret/b.jpg",
        "http missing": f"{roots[1]}/missing.jpg",
        "http elsewhere": "http://127.0.0.1:1/photos/b.jpg",
    }
    for id, source in {**good, **bad}.items():
        stream.submit(id=id, source=source, output=f"{id}.jpg")
    stream.flush()
    # When a worker takes them
    worker = stream.worker(input_roots=roots, output_root=f"s3://{store.name}/out", group=f"{stream.name}-1")
    results = {result["id"]: result for result in stream.results(len(good) + len(bad))}
    stream.stop(worker)
    # Then exactly the photos below a root are translated and stored at the URL of their results
    assert {id for id, result in results.items() if result["status"] == "done"} == set(good)
    assert {letter.key.decode() for letter in stream.dead_letters(len(bad))} == set(bad)
    files = store.results("out/")
    assert {f"{id}.jpg" for id in good} == set(files)
    assert files["s3.jpg"] == files["relative.jpg"] != files["http.jpg"]
    assert results["http"]["output"] == f"s3://{store.name}/out/http.jpg"
    # And a second delivery is answered from the results in the bucket
    stream.worker(input_roots=roots, output_root=f"s3://{store.name}/out", group=f"{stream.name}-2")
    stream.submit(id="end", source="a.jpg", output="end.jpg")
    stream.flush()
    again = [result["id"] for result in stream.results(len(good) + len(bad) + 1) if result.get("duplicate")]
    assert set(again) == set(good)


def test_an_unavailable_bucket_pauses_the_worker_and_no_job_is_lost(stream: Stream, store: Store) -> None:
    worker = stream.worker(output_root=f"s3://{store.name}/out", max_in_flight=8)
    eventually(lambda: worker.health.missing() == [])
    store.go()
    ids = stream.submit_photos(20)
    eventually(lambda: worker.health.missing() == ["sink"])
    assert worker.health.silent() == []
    assert stream.committed() == 0
    store.come()
    results = stream.results(len(ids))
    assert {result["status"] for result in results} == {"done"}
    assert len(store.results("out/")) == len(ids)
    eventually(lambda: worker.health.missing() == [])


def test_a_slow_output_pauses_fetching(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given an output that stores at most 80 results a second, and a limit of 16 jobs in flight
    write = Output.write

    def slow(self: Output, name: str, data: bytes) -> None:
        time.sleep(0.05)
        write(self, name, data)

    monkeypatch.setattr(Output, "write", slow)
    port = free_port()
    ids = stream.submit_photos(100)
    worker = stream.worker(max_in_flight=16, metrics_port=port)
    # When all jobs are done
    in_flight, paused = [], []
    while len(stream.files()) < len(ids):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            metrics = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines())
        in_flight.append(float(metrics["solstice_in_flight_jobs"]))
        paused.append(float(metrics["solstice_paused_partitions"]))
        time.sleep(0.02)
    # Then the jobs in flight exceeded the limit by one poll at most, fetching was paused, and each job has one result
    assert max(in_flight) <= 16 + 8
    assert max(paused) == stream.partitions
    results = stream.results(len(ids))
    assert sorted(result["id"] for result in results) == sorted(ids)
    stream.stop(worker)
    assert stream.committed() == len(ids)
