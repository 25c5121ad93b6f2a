"""Slow and unavailable input roots: jobs of other roots go on, and no good job fails."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.stream.brokers import free_port
from tests.stream.stream import Stream, eventually, photo

PHOTO = photo()
LARGE = photo(width=960, height=720)


class WebServer:
    """A web server that can be stopped and started; `/photos/slow*` stops in the middle until `go_on` is set.

    `/photos/*large*` is a larger photo.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/photos"
        self.go_on = threading.Event()
        self.stalls = threading.Event()
        """A download has stopped in the middle."""
        self.requests: Counter[str] = Counter()
        """Requests by path."""
        self._server: ThreadingHTTPServer | None = None

    def come(self) -> None:
        """Start serving."""
        go_on, stalls, requests = self.go_on, self.stalls, self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests[self.path] += 1
                body = LARGE if "large" in self.path else PHOTO
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:50])
                if "slow" in self.path:
                    stalls.set()
                    go_on.wait(60)
                self.wfile.write(body[50:])

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def go(self) -> None:
        """Stop serving."""
        self.go_on.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.go()


def submit(stream: Stream, web: WebServer, *names: str) -> None:
    for name in names:
        stream.submit(id=name, source=f"{web.url}/{name}", output=name)
    stream.flush()


def test_a_stalled_download_does_not_block_other_jobs(stream: Stream, web: WebServer) -> None:
    # Given one download that stalls, in front of 60 others on all partitions
    web.come()
    submit(stream, web, "slow.jpg", *(f"{i}.jpg" for i in range(60)))
    stream.worker(input_roots=(web.url,), max_in_flight=200)
    # Then the others are done while it is still stalled
    results = stream.results(60)
    assert len(results) == 60
    assert "slow.jpg" not in {result["id"] for result in results}
    # And its job is done once the download goes on
    web.go_on.set()
    assert {result["status"] for result in stream.results(61)} == {"done"}
    eventually(lambda: stream.committed() == 61)


def test_a_stalled_server_does_not_block_other_sources(stream: Stream, web: WebServer) -> None:
    # Given more stalled downloads than read threads and jobs in flight, in front of jobs of a folder
    web.come()
    submit(stream, web, *(f"slow-{i}.jpg" for i in range(200)))
    ids = stream.submit_photos(60)
    roots = (web.url, str(stream.inputs))
    stream.worker(input_roots=roots, max_in_flight=32)
    # Then the jobs of the folder are done while all downloads are still stalled
    assert {result["id"] for result in stream.results(60)} == set(ids)
    # And the server's jobs are done once the downloads go on
    web.go_on.set()
    results = stream.results(260)
    assert {result["status"] for result in results} == {"done"}
    assert len(results) == 260
    eventually(lambda: stream.committed() == 260)


def test_large_images_wait_for_memory_and_hold_back_no_small_one(stream: Stream, web: WebServer) -> None:
    # Given memory for one large image at a time, and one whose download stalls
    web.come()
    assert len(PHOTO) < len(LARGE) // 128
    pipeline = replace(stream.config().pipeline, in_flight_bytes=4 * len(LARGE))
    submit(stream, web, "slow-large.jpg")
    stream.worker(input_roots=(web.url,), pipeline=pipeline)
    assert web.stalls.wait(60)
    # When others come
    submit(stream, web, *(f"large-{i}.jpg" for i in range(8)), *(f"{i}.jpg" for i in range(20)))
    # Then the small ones are done, while the other large ones are not read
    results = stream.results(20)
    assert {result["id"] for result in results} == {f"{i}.jpg" for i in range(20)}
    # And all are done once the download goes on
    web.go_on.set()
    assert {result["status"] for result in stream.results(29)} == {"done"}
    eventually(lambda: stream.committed() == 29)
    # And the one that found memory free was asked for once, the others again after their wait
    assert web.requests["/photos/slow-large.jpg"] == 1
    assert {web.requests[f"/photos/large-{i}.jpg"] for i in range(8)} == {2}


def test_a_download_over_the_read_timeout_is_a_dead_letter(stream: Stream, web: WebServer) -> None:
    web.come()
    submit(stream, web, "slow.jpg", "good.jpg")
    stream.worker(input_roots=(web.url,), read_timeout_s=1.0)
    status = {result["id"]: result["status"] for result in stream.results(2)}
    assert status == {"slow.jpg": "failed", "good.jpg": "done"}
    (letter,) = stream.dead_letters(1)
    assert dict(letter.headers)["solstice-reason"] == b"source was not read within 1 s (--read-timeout)"


def test_jobs_of_an_unavailable_server_wait_while_others_go_on(stream: Stream, web: WebServer) -> None:
    # Given a stopped web server and an available folder
    submit(stream, web, *(f"{i}.jpg" for i in range(40)))
    ids = stream.submit_photos(20)
    worker = stream.worker(input_roots=(web.url, str(stream.inputs)), max_in_flight=200)
    # Then the jobs of the folder are done, and /readyz names the missing source
    results = stream.results(20)
    assert {result["id"] for result in results} == set(ids)
    eventually(lambda: worker.health.missing() == ["source"])
    assert worker.health.reasons()["source"].startswith("input root 0 does not answer: ")
    assert worker.health.silent() == []
    # And when the server starts, all jobs are done and none is a dead letter
    web.come()
    results = stream.results(60)
    assert {result["status"] for result in results} == {"done"}
    eventually(lambda: worker.health.missing() == [])
    eventually(lambda: stream.committed() == 60)


def test_jobs_of_an_unavailable_folder_wait_for_it(stream: Stream) -> None:
    worker = stream.worker(max_in_flight=30)
    eventually(lambda: worker.health.missing() == [])
    ids = [f"{i}" for i in range(60)]
    for id in ids:
        stream.add_photo(f"{id}.jpg", PHOTO)
    unplugged = stream.folder / "unplugged"
    stream.inputs.rename(unplugged)
    for id in ids:
        stream.submit(id=id, source=f"{id}.jpg", output=f"{id}.jpg")
    stream.flush()
    eventually(lambda: worker.health.missing() == ["source"])
    unplugged.rename(stream.inputs)
    results = stream.results(60)
    assert {(result["id"], result["status"]) for result in results} == {(id, "done") for id in ids}
    eventually(lambda: worker.health.missing() == [])


def test_a_worker_that_waits_for_a_source_drains_without_committing_its_jobs(stream: Stream, web: WebServer) -> None:
    submit(stream, web, "a.jpg", "b.jpg")
    worker = stream.worker(input_roots=(web.url,))
    eventually(lambda: worker.health.missing() == ["source"])
    stream.stop(worker, seconds=20)
    assert stream.committed() == 0
    web.come()
    stream.worker(input_roots=(web.url,))
    assert {result["status"] for result in stream.results(2)} == {"done"}


def test_the_limit_on_dead_letters_outlives_restarts_until_it_is_reset(stream: Stream) -> None:
    for i in range(60):
        stream.send(b"{", key=f"{i}".encode())
    stream.flush()
    # Given a worker that stopped at its limit
    options = ("--max-dead-letters", "10")
    assert stream.process(*options, wait=False).wait(60) == 2
    num_letters = len(stream.dead_letters(0))
    assert num_letters <= 10
    # Then the next one does not start, names cause and remedy, and sends no more dead letters
    assert stream.process(*options, wait=False).wait(60) == 2
    log = stream.log(1).read_text()
    assert "This worker does not start: 11 jobs in a row failed" in log
    assert "--reset-dead-letter-limit" in log
    assert "Traceback" not in log
    assert len(stream.dead_letters(0)) == num_letters
    # And it starts with --reset-dead-letter-limit
    process = stream.process(*options, "--reset-dead-letter-limit")
    assert process.wait(60) == 2
    assert "jobs in a row failed" in stream.log(2).read_text()
