"""Read images from a folder of a web server, and from nowhere else.

The path is checked as it is sent, after the client's own normalisation, and the address as it is connected to, after
name resolution: a name that resolves to another machine the second time (DNS rebinding) is refused then.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import fsspec.asyn

from engine.errors import SetupError, SkipImage
from engine.stream.read_memory import NeedsMemory, ReadLimits
from engine.system.extras import install_hint
from engine.system.storage import Login, login_for

_TOO_MANY_REQUESTS = 429
_PASSING_STATUS = (408, 425, _TOO_MANY_REQUESTS)
_OVERLOADED = (_TOO_MANY_REQUESTS, 502, 503, 504)
_PROBE_S = 5.0
_MAX_ENCODINGS = 8  # percent-encoded percent signs, nested; no honest name has two

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\\\u2028\u2029]")
# UTF-8 sequences that are longer than necessary; some servers decode them to `.` and `/`.
_OVERLONG = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f][\x80-\xbf]|\xf0[\x80-\x8f][\x80-\xbf]{2}")


class SourceTimeout(OSError):
    """A web server has not sent the whole body in time."""


class ServerOverloaded(OSError):
    """A web server answers that it cannot serve anything at the moment."""


class WebInput:
    """A folder of a web server that jobs may read from."""

    def __init__(self, root: str, private_hosts: Collection[str] = (), timeout_s: float = 30.0) -> None:
        """Set up a client for the URL `root`, which may contain a user and a password (else see `login_for`).

        A host name in `private_hosts` may resolve to a loopback, link-local or private address. A `root` with an
        address in place of a name, or with `localhost`, may be private as well. `timeout_s` limits a whole request.

        Raises `SetupError` when the name resolves to a private address now, and when aiohttp is not installed.
        """
        self._url, login = login_for(root.rstrip("/"))
        host = urlsplit(self._url).hostname or ""
        private = host in private_hosts or host == "localhost" or _is_address(host)
        if not private:
            _require_public_now(host)
        try:
            self._fs = _client(login, timeout_s, allow_private=private)
        except ImportError as error:
            raise SetupError(f"{root.split(':')[0]}:// needs: {install_hint('http')}.") from error
        self._timeout_s = timeout_s

    def uri(self, name: str) -> str:
        """Return the URL of a file below this root."""
        return f"{self._url}/{name}"

    def read(self, uri: str, limits: ReadLimits) -> bytes | None:
        """Return the body at `uri`, or None when it is not below this root.

        Raises `SkipImage` when the URL leads out, the address is private, the server refuses this one file or it is too
        large, `NeedsMemory` when it is larger than what may be read now, `SourceTimeout` when the body takes too long,
        and `OSError` when trying again may help.
        """
        if not uri.startswith(self._url + "/"):
            return None
        require_inside(uri.removeprefix(self._url + "/"))
        try:
            body: bytes = fsspec.asyn.sync(self._fs.loop, self._fetch, uri, limits)
        except (SkipImage, NeedsMemory, OSError):
            raise
        except Exception as error:
            raise OSError(str(error) or type(error).__name__) from error
        return body

    def answers(self) -> bool:
        """Return whether the web server answers a request for the root itself, be it with a refusal."""
        try:
            status: int = fsspec.asyn.sync(self._fs.loop, self._status, timeout=_PROBE_S)
        except SkipImage:
            return True
        except Exception:  # noqa: BLE001 (whatever it is, there was no answer)
            return False
        return status < 500 and status != _TOO_MANY_REQUESTS

    async def _status(self) -> int:
        session = await self._fs.set_session()
        async with session.get(self._fs.encode_url(f"{self._url}/"), allow_redirects=False) as answer:
            return int(answer.status)

    async def _fetch(self, uri: str, limits: ReadLimits) -> bytes:
        session = await self._fs.set_session()
        url, root = self._fs.encode_url(uri), self._fs.encode_url(self._url)
        if url.origin() != root.origin() or not url.raw_path.startswith(root.raw_path.rstrip("/") + "/"):
            raise SkipImage("source leads out of its root")
        try:
            async with session.get(url, allow_redirects=False) as answer:
                _check_status(answer.status)
                _require_plain_transfer(answer.headers.get("Content-Encoding", ""))
                limits.admit(answer.content_length or 0)  # a server need not tell
                body = bytearray()
                while part := await answer.content.read(limits.most + 1 - len(body)):
                    body += part
                    limits.admit_so_far(len(body))
                return bytes(body)
        except TimeoutError as error:
            raise SourceTimeout(f"source was not read within {self._timeout_s:g} s") from error


def require_inside(path: str) -> None:
    """Raise `SkipImage` when `path`, the part of a URL after its root, might lead out of the root.

    Refused are `.` and `..`, control characters and backslashes, and each of these and the slash in percent-encoding,
    at any depth. A query is not part of the path; only control characters and backslashes are refused in it.
    """
    require_plain(path)
    name = path.split("?", 1)[0].split("#", 1)[0]
    for _ in range(_MAX_ENCODINGS):
        if any(_is_dots(part) for part in name.split("/")):
            raise SkipImage("source leads out of its root")
        data = unquote_to_bytes(name)
        decoded = data.decode("utf-8", "replace")
        if decoded == name:
            return
        if _OVERLONG.search(data) or any(decoded.count(mark) != name.count(mark) for mark in "./"):
            raise SkipImage("source has an encoded dot or slash in it, which might lead out of its root")
        require_plain(decoded)
        name = decoded
    raise SkipImage("source is percent-encoded too many times")


def require_plain(text: str) -> None:
    """Raise `SkipImage` when `text` has a control character or a backslash in it."""
    if _CONTROL.search(text):
        raise SkipImage("source has a control character or a backslash in it, and might lead out of its root")


def is_public(address: str) -> bool:
    """Return whether `address` (IPv4 or IPv6) is reachable on the Internet: not loopback, link-local or private."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if embedded is None and ip in _NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded is not None:
            return is_public(str(embedded))
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def public_only(host: str, addresses: list[str]) -> None:
    """Raise `SkipImage` when one of the `addresses` of `host` is not public."""
    private = next((address for address in addresses if not is_public(address)), None)
    if private is not None:
        raise SkipImage(f"{host} has the private address {private}; --allow-private-host {host} permits it")


def _client(login: Login | None, timeout_s: float, *, allow_private: bool) -> Any:
    import aiohttp  # an extra
    from aiohttp.resolver import ThreadedResolver
    from fsspec.implementations.http import HTTPFileSystem

    class PublicResolver(ThreadedResolver):
        """Resolve names for every new connection, to public addresses only."""

        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
            found = await super().resolve(host, port, family)
            public_only(host, [answer["host"] for answer in found])
            return found

    async def get_client(**settings: Any) -> aiohttp.ClientSession:
        resolver = ThreadedResolver() if allow_private else PublicResolver()
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver), **settings)

    settings = {
        "timeout": aiohttp.ClientTimeout(total=timeout_s),
        # A body that is compressed for its transfer may expand a thousandfold, and images gain nothing from it.
        "auto_decompress": False,
        "headers": {"Accept-Encoding": "identity", **({} if login is None else login.header)},
    }
    return HTTPFileSystem(get_client=get_client, client_kwargs=settings, skip_instance_cache=True)


def _check_status(status: int) -> None:
    if status in (404, 410):
        raise SkipImage("source does not exist")
    if 300 <= status < 400:
        raise SkipImage(f"source is answered with status {status}; redirects are not followed")
    if 400 <= status < 500 and status not in _PASSING_STATUS:
        raise SkipImage(f"source cannot be read: status {status}")
    if status in _OVERLOADED:
        raise ServerOverloaded(f"the server answers with status {status}")
    if status != 200:
        raise OSError(f"the server answers with status {status}")


def _require_plain_transfer(encoding: str) -> None:
    if encoding.strip().lower() not in ("", "identity"):
        raise SkipImage(f"source is compressed for its transfer ({encoding[:50]}), though the request refuses that")


def _is_dots(part: str) -> bool:
    """Return whether a server may take `part` for `.` or `..`: with blanks, or with parameters after a semicolon."""
    bare = part.split(";", 1)[0]
    return bare != "" and bare.strip(" .") == "" and "." in bare


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return False
    return True


def _require_public_now(host: str) -> None:
    """Raise `SetupError` when `host` resolves to a private address. A name that does not resolve is left for later."""
    with suppress(OSError, UnicodeError):
        addresses = [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
        try:
            public_only(host, addresses)
        except SkipImage as error:
            raise SetupError(f"The input root cannot be used: {error}.") from error
