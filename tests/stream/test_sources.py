"""Input roots that are slow or away cost nobody else anything, and no good job."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.stream.brokers import free_port
from tests.stream.stream import Stream, eventually, photo

PHOTO = photo()


class WebServer:
    """A web server on a port of its own that can go away and come back; `/photos/slow*` waits in the middle."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/photos"
        self.go_on = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    def come(self) -> None:
        """Start serving."""
        go_on = self.go_on

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(PHOTO)))
                self.end_headers()
                self.wfile.write(PHOTO[:50])
                if "slow" in self.path:
                    go_on.wait(60)
                self.wfile.write(PHOTO[50:])

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


def test_a_slow_source_holds_back_no_other_job(stream: Stream, web: WebServer) -> None:
    # Given one image that stops in the middle, ahead of 60 others on all partitions
    web.come()
    submit(stream, web, "slow.jpg", *(f"{i}.jpg" for i in range(60)))
    stream.worker(input_roots=(web.url,), max_in_flight=200)
    # Then the others are done while it still waits
    results = stream.results(60)
    assert len(results) == 60
    assert "slow.jpg" not in {result["id"] for result in results}
    # And it is done once it goes on
    web.go_on.set()
    assert {result["status"] for result in stream.results(61)} == {"done"}
    eventually(lambda: stream.committed() == 61)


def test_a_server_that_drips_every_image_holds_back_no_other_source(stream: Stream, web: WebServer) -> None:
    # Given more images that stop in the middle than there are threads, and than may be in flight, ahead of a folder's
    web.come()
    submit(stream, web, *(f"slow-{i}.jpg" for i in range(200)))
    ids = stream.submit_photos(60)
    roots = (web.url, str(stream.inputs))
    stream.worker(input_roots=roots, max_in_flight=32)
    # Then the folder's are done while all of the server's still wait
    assert {result["id"] for result in stream.results(60)} == set(ids)
    # And those are done once it goes on
    web.go_on.set()
    results = stream.results(260)
    assert {result["status"] for result in results} == {"done"}
    assert len(results) == 260
    eventually(lambda: stream.committed() == 260)


def test_an_image_that_takes_too_long_is_a_dead_letter_with_the_reason(stream: Stream, web: WebServer) -> None:
    web.come()
    submit(stream, web, "slow.jpg", "good.jpg")
    stream.worker(input_roots=(web.url,), read_timeout_s=1.0)
    status = {result["id"]: result["status"] for result in stream.results(2)}
    assert status == {"slow.jpg": "failed", "good.jpg": "done"}
    (letter,) = stream.dead_letters(1)
    assert dict(letter.headers)["solstice-reason"] == b"source was not read within 1 s (--read-timeout)"


def test_a_web_server_that_is_away_costs_no_job_and_nothing_of_others(stream: Stream, web: WebServer) -> None:
    # Given a web server that is away, and a folder that is there
    submit(stream, web, *(f"{i}.jpg" for i in range(40)))
    ids = stream.submit_photos(20)
    worker = stream.worker(input_roots=(web.url, str(stream.inputs)), max_in_flight=200)
    # Then jobs of the folder are done, and the worker says what it waits for
    results = stream.results(20)
    assert {result["id"] for result in results} == set(ids)
    eventually(lambda: worker.health.missing() == ["source"])
    assert worker.health.reasons()["source"].startswith("input root 0 does not answer: ")
    assert worker.health.silent() == []
    # And when the server comes, all are done, none a dead letter
    web.come()
    results = stream.results(60)
    assert {result["status"] for result in results} == {"done"}
    eventually(lambda: worker.health.missing() == [])
    eventually(lambda: stream.committed() == 60)


def test_a_folder_that_is_unplugged_costs_no_job(stream: Stream) -> None:
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


def test_a_worker_that_waits_for_a_source_drains_at_once_and_leaves_the_jobs(stream: Stream, web: WebServer) -> None:
    submit(stream, web, "a.jpg", "b.jpg")
    worker = stream.worker(input_roots=(web.url,))
    eventually(lambda: worker.health.missing() == ["source"])
    stream.stop(worker, seconds=20)
    assert stream.committed() == 0
    web.come()
    stream.worker(input_roots=(web.url,))
    assert {result["status"] for result in stream.results(2)} == {"done"}


def test_the_limit_on_dead_letters_is_remembered_until_it_is_reset(stream: Stream) -> None:
    for i in range(60):
        stream.send(b"{", key=f"{i}".encode())
    stream.flush()
    # Given a worker that stopped at its limit
    options = ("--max-dead-letters", "10")
    assert stream.process(*options, wait=False).wait(60) == 2
    num_letters = len(stream.dead_letters(0))
    assert num_letters <= 10
    # Then the next one does not start, says why and what to do, and sends no more dead letters
    assert stream.process(*options, wait=False).wait(60) == 2
    said = stream.log(1).read_text()
    assert "This worker does not start: 11 jobs in a row failed" in said
    assert "--reset-dead-letter-limit" in said
    assert "Traceback" not in said
    assert len(stream.dead_letters(0)) == num_letters
    # And it starts when it is told to
    process = stream.process(*options, "--reset-dead-letter-limit")
    assert process.wait(60) == 2
    assert "jobs in a row failed" in stream.log(2).read_text()
