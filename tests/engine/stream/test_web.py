"""Web servers are read only below the root, only at public addresses, and for a limited time."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.errors import SetupError, SkipImage
from engine.stream.inputs import Inputs, SourceUnavailable
from engine.stream.web import is_public, public_only, require_inside


class Web(BaseHTTPRequestHandler):
    """Handler with correct, wrong, slow and endless answers."""

    asked: list[str]
    slow = threading.Event()

    def do_GET(self) -> None:
        """Send the answer of the path."""
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
        elif self.path == "/photos/compressed.jpg":
            assert self.headers["Accept-Encoding"] == "identity"
            body = gzip.compress(bytes(1_000_000))
            self.answer(200, body, Content_Length=str(len(body)), Content_Encoding="gzip")
        elif self.path == "/photos/slow.jpg":
            self.answer(200, b"p", Content_Length="5")
            self.slow.wait(20)
        elif self.path == "/photos/login.jpg":
            known = self.headers["Authorization"] == "Basic dXNlcjpwQHNz"  # user:p@ss
            self.answer(200 if known else 401, b"photo", Content_Length="5")
        elif self.path.startswith("/photos/name/"):
            self.answer(200, self.path.encode(), Content_Length=str(len(self.path)))
        elif self.path == "/photos/broken.jpg":
            self.answer(503, b"", Content_Length="0")
        elif self.path == "/photos/private.jpg":
            self.answer(403, b"", Content_Length="0")
        else:
            self.answer(404, b"", Content_Length="0")

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Send a complete answer, or the beginning of one without a length."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def pour(self) -> None:
        """Send until the client disconnects, at most 1 GB."""
        try:
            for _ in range(1000 if self.command == "GET" else 0):
                self.wfile.write(bytes(1 << 20))
                self.asked.append("MB")
        except OSError:
            return

    def log_message(self, format: str, *args: object) -> None:
        """Log no request."""


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """Return the address of a web server and a list of the paths that were requested."""
    asked: list[str] = []
    handler = type("Handler", (Web,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        Web.slow.set()
        server.shutdown()
        Web.slow.clear()
        thread.join()


def test_only_paths_below_the_root_are_requested(web: tuple[str, list[str]]) -> None:
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
        ("compressed.jpg", "compressed for its transfer"),
    ],
)
def test_redirects_errors_and_oversized_answers_are_refused(web: tuple[str, list[str]], name: str, said: str) -> None:
    url, asked = web
    with pytest.raises(SkipImage, match=said):
        Inputs([f"{url}/photos"], 100).read(name)
    assert "/private.jpg" not in asked
    assert asked.count("MB") < 100, "it was read without bound"


def test_status_503_can_be_retried(web: tuple[str, list[str]]) -> None:
    with pytest.raises(OSError, match="503"):
        Inputs([f"{web[0]}/photos"], 100).read("broken.jpg")


@pytest.mark.parametrize(
    "name",
    [
        ".\t./private.jpg",
        ".\n./private.jpg",
        "\r../private.jpg",
        "..\x00/private.jpg",
        "sub/..\\..\\private.jpg",
        "..%2fprivate.jpg",
        "%2e%2e/private.jpg",
        "%2e\t%2e/private.jpg",
        ".%09./private.jpg",
        "%252e%252e/private.jpg",
        "%25252e%25252e%25252fprivate.jpg",
        "sub%2f..%2f../private.jpg",
        "sub%5c..%5c../private.jpg",
        "..;a=b/private.jpg",
        "..%20/private.jpg",
        "%c0%ae%c0%ae/private.jpg",
        "%e0%80%ae%e0%80%ae/private.jpg",
        "a%0d%0aHost: elsewhere/b.jpg",
        "a.jpg?x=%0a\n",
        "%25" * 20 + "2e.jpg",
        "." + "%" + "25" * 20 + "2e/private.jpg",
    ],
)
def test_no_spelling_of_a_path_leaves_the_root(web: tuple[str, list[str]], name: str) -> None:
    url, asked = web
    for source in (name, f"{url}/photos/{name}"):
        with pytest.raises(SkipImage):
            Inputs([f"{url}/photos"], 100).read(source)
    assert asked == [], "the server was asked"


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("a b.jpg", "a%20b.jpg"),
        ("a%20b.jpg", "a%20b.jpg"),
        ("100%25.jpg", "100%25.jpg"),
        ("\u00e4.jpg", "%C3%A4.jpg"),
        ("%E9.jpg", "%E9.jpg"),
        ("a...b.jpg", "a...b.jpg"),
        (".hidden/a.jpg", ".hidden/a.jpg"),
        ("a.jpg?sig=a%2Fb%2E", "a.jpg?sig=a/b."),
    ],
)
def test_an_ordinary_name_is_requested_in_percent_encoding(web: tuple[str, list[str]], name: str, sent: str) -> None:
    url, _ = web
    assert Inputs([f"{url}/photos"], 100).read(f"name/{name}") == f"/photos/name/{sent}".encode()


def test_a_path_encoded_too_many_times_is_refused() -> None:
    name = "a"
    for _ in range(3):
        require_inside(name)
        name = f"a%{'25' * 2}{name}"
    with pytest.raises(SkipImage, match="too many times"):
        require_inside("a%" + "25" * 20 + "41.jpg")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::93.184.216.34", True),
        ("2002:7f00:1::", False),
    ],
)
def test_only_addresses_on_the_internet_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_one_private_address_among_public_ones_is_refused() -> None:
    public_only("images.example", ["93.184.216.34"])
    with pytest.raises(
        SkipImage, match=r"images.example has the private address 10.0.0.1; --allow-private-host images"
    ):
        public_only("images.example", ["93.184.216.34", "10.0.0.1"])


class Names:
    """Resolver that returns another address each time, as the owner of a domain may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.addresses = list(addresses)
        real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **named: real(self.of(host), *rest, **named))

    def of(self, host: str) -> str:
        """Return the next address of `host`."""
        if host != "images.example":
            return host
        return self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]


def test_a_name_with_a_private_address_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, "10.0.0.1")
    with pytest.raises(SetupError, match=r"images.example has the private address 10.0.0.1; --allow-private-host"):
        Inputs(["http://images.example/photos"], 100)


def test_a_name_that_gets_a_private_address_later_is_refused_on_connecting(
    web: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = web
    port = url.rsplit(":", 1)[1]
    names = Names(monkeypatch, "93.184.216.34", "127.0.0.1")
    inputs = Inputs([f"http://images.example:{port}/photos"], 100)
    assert names.addresses == ["127.0.0.1"]
    with pytest.raises(SkipImage, match=r"images.example has the private address 127.0.0.1"):
        inputs.read("a.jpg")
    assert asked == []
    allowed = Inputs([f"http://images.example:{port}/photos"], 100, private_hosts=("images.example",))
    assert allowed.read("a.jpg") == b"photo"


def test_user_and_password_are_sent_but_never_part_of_the_source_of_a_job(
    web: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, _ = web
    with_login = url.replace("://", "://user:p%40ss@")
    assert Inputs([f"{with_login}/photos"], 100).read(f"{url}/photos/login.jpg") == b"photo"
    with pytest.raises(SkipImage, match="status 401"):
        Inputs([f"{url}/photos"], 100).read("login.jpg")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password p@ss\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert Inputs([f"{url}/photos"], 100).read("login.jpg") == b"photo"


def test_a_body_that_does_not_end_in_time_is_abandoned(web: tuple[str, list[str]]) -> None:
    with pytest.raises(SkipImage, match=r"not read within 0.3 s \(--read-timeout\)"):
        Inputs([f"{web[0]}/photos"], 100, timeout_s=0.3).read("slow.jpg")


def test_a_closed_or_overloaded_web_server_is_unavailable(
    web: tuple[str, list[str]],
) -> None:
    with pytest.raises(SourceUnavailable, match="503"):
        Inputs([f"{web[0]}/photos"], 100).read("broken.jpg")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SourceUnavailable):
        Inputs([f"http://127.0.0.1:{port}/photos"], 100).read("a.jpg")
