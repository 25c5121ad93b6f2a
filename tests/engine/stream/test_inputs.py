"""Jobs read and results go only below their roots, and a root that is gone stays gone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.errors import SkipImage
from engine.stream.inputs import Inputs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a folder with a photo in a sub-folder, and a secret beside it."""
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/sub/a b.jpg").write_bytes(b"photo")
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "in"


def test_a_file_may_be_named_relative_absolute_or_as_uri(root: Path) -> None:
    inputs = Inputs([str(root)], 100)
    path = root / "sub/a b.jpg"
    for name in ("sub/a b.jpg", str(path), path.as_uri(), path.as_uri().replace("file://", "file://localhost")):
        assert inputs.read(name) == b"photo", name


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("../secret", "not under any"),
        ("sub/../../secret", "not under any"),
        ("way/secret", "not under any"),
        ("link", "not under any"),
        ("file:///etc/passwd", "not under any"),
        ("s3://bucket/key", "not under any"),
        ("file://elsewhere/etc/passwd", "not a valid file URI"),
        ("missing", "does not exist"),
        ("sub", "not a regular file"),
        ("pipe", "not a regular file"),
        ("large", "over the limit of 100"),
        ("nul\0", "not a valid path"),
        ("x" * 5000, "cannot be read"),
    ],
)
def test_what_lies_outside_or_is_no_file_is_refused(root: Path, source: str, said: str) -> None:
    (root / "way").symlink_to(root.parent)
    (root / "link").symlink_to(root.parent / "secret")
    os.mkfifo(root / "pipe")
    (root / "large").write_bytes(bytes(101))
    with pytest.raises(SkipImage, match=said):
        Inputs([str(root)], 100).read(source)


def test_a_root_may_be_reached_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(root)
    inputs = Inputs([str(tmp_path / "current")], 100)
    assert inputs.read("sub/a b.jpg") == inputs.read(str(tmp_path / "current/sub/a b.jpg")) == b"photo"


def test_the_second_root_is_read_too(root: Path, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    inputs = Inputs([str(tmp_path / "first"), str(root)], 100)
    assert inputs.read(str(root / "sub/a b.jpg")) == b"photo"


def test_without_roots_a_job_must_bring_its_image() -> None:
    with pytest.raises(SkipImage, match="no --input-root"):
        Inputs([], 100).read("a.jpg")


class Web(BaseHTTPRequestHandler):
    """Serves what an honest server does, and what others do."""

    asked: list[str]

    def do_GET(self) -> None:
        """Answer by the path."""
        self.asked.append(self.path)
        if self.path in ("/photos/a.jpg", "/private.jpg"):
            self.answer(200, b"photo", Content_Length="5")
        elif self.path == "/photos/moved.jpg":
            self.answer(302, b"see there", Location="/private.jpg", Content_Length="9")
        elif self.path == "/photos/large.jpg":
            self.answer(200, bytes(101), Content_Length="101")
        elif self.path == "/photos/endless.jpg":
            self.answer(200, b"")
            self.pour()
        elif self.path == "/photos/broken.jpg":
            self.answer(503, b"", Content_Length="0")
        elif self.path == "/photos/private.jpg":
            self.answer(403, b"", Content_Length="0")
        else:
            self.answer(404, b"", Content_Length="0")

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Send a whole answer, or the beginning of one without a length."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def pour(self) -> None:
        """Send until nobody listens, at most 1 GB."""
        try:
            for _ in range(1000 if self.command == "GET" else 0):
                self.wfile.write(bytes(1 << 20))
                self.asked.append("MB")
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """Give the address of a web server, and what it is asked for."""
    asked: list[str] = []
    handler = type("Handler", (Web,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def test_a_web_server_is_read_below_its_root_alone(web: tuple[str, list[str]]) -> None:
    url, asked = web
    inputs = Inputs([f"{url}/photos"], 100)
    assert inputs.read(f"{url}/photos/a.jpg") == inputs.read("a.jpg") == b"photo"
    seen = len(asked)
    for outside in ("/private.jpg", "/photos2/a.jpg", "/photos/../private.jpg", "/photos/%2e%2e/private.jpg"):
        with pytest.raises(SkipImage, match="root"):
            inputs.read(url + outside)
    with pytest.raises(SkipImage, match="root"):
        inputs.read("http://127.0.0.1:1/photos/a.jpg")
    assert len(asked) == seen, "it was not even asked"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.jpg", "does not exist"),
        ("moved.jpg", "redirect"),
        ("private.jpg", "status 403"),
        ("large.jpg", "over the limit of 100"),
        ("endless.jpg", "over the limit of 100"),
    ],
)
def test_what_a_web_server_should_not_send_is_refused(web: tuple[str, list[str]], name: str, said: str) -> None:
    url, asked = web
    with pytest.raises(SkipImage, match=said):
        Inputs([f"{url}/photos"], 100).read(name)
    assert "/private.jpg" not in asked
    assert asked.count("MB") < 100, "it was read without bound"


def test_a_web_server_in_trouble_may_be_asked_again(web: tuple[str, list[str]]) -> None:
    with pytest.raises(OSError, match="503"):
        Inputs([f"{web[0]}/photos"], 100).read("broken.jpg")
