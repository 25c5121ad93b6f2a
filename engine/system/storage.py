"""Object stores and web servers as folders, through fsspec: `s3://`, `gs://`, `az://`, `http(s)://` and the rest."""

from __future__ import annotations

import base64
import netrc
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec

from engine.errors import SetupError, first_line
from engine.system.extras import install_hint

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"}
READ_ONLY = ("http", "https")


def is_url(location: str | Path) -> bool:
    """Return whether `location` is a URL instead of a path on this machine."""
    return "://" in str(location)


@dataclass(frozen=True)
class Login:
    """A user and a password, which no message shows."""

    user: str
    password: str = field(repr=False)

    @property
    def header(self) -> dict[str, str]:
        """HTTP header for Basic authentication (RFC 7617)."""
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {token}"}


def login_for(url: str) -> tuple[str, Login | None]:
    """Return `url` without a login, and the login in it or in the netrc file that `$NETRC` names.

    Raises `SetupError` when that file cannot be read.
    """
    public, login = split_login(url)
    file = os.environ.get("NETRC")
    if login is not None or not file or not url.startswith(READ_ONLY):
        return public, login
    try:
        found = netrc.netrc(file).authenticators(urlsplit(public).hostname or "")
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not in the format of netrc"
        raise SetupError(f"The file {file} that NETRC names cannot be read: {reason}.") from None
    return public, None if found is None else Login(found[0], found[2] or "")


def split_login(url: str) -> tuple[str, Login | None]:
    """Return `url` without the user and password it may contain, and these."""
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    userinfo, at, host = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    if not at or not colon:  # without a colon it is a user alone, or the `container@account` of Azure
        return url, None
    return f"{scheme}{separator}{host}{slash}{path}", Login(unquote(user), unquote(password))


@dataclass(frozen=True)
class Storage:
    """A folder behind a URL. Keys are relative to it, with `/` between their parts."""

    url: str
    """As the user wrote it, without a password and without a slash at the end."""
    fs: Any
    """The fsspec file system."""
    root: str
    """The path of the folder in `fs`."""

    def read(self, key: str) -> bytes:
        """Return the bytes of `key`; raises `FileNotFoundError` or another `OSError`."""
        data: bytes = self.fs.cat_file(self.path(key))
        return data

    def write(self, key: str, data: bytes) -> None:
        """Write `data` to `key`: whole or not at all, as object stores do; raises `OSError`."""
        self.fs.pipe_file(self.path(key), data)

    def upload(self, key: str, path: Path) -> None:
        """Write a local file to `key`, whole or not at all, without holding it in memory; raises `OSError`."""
        self.fs.put_file(str(path), self.path(key))

    def delete(self, key: str) -> None:
        """Delete `key` if it exists."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(key))

    def find(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each key and the store's information about it, in the order of the keys; raises `SetupError`.

        What has been yielded is forgotten here, so that a listing is not in memory twice.
        """
        self.fs.invalidate_cache()
        with explained(self.url):
            if self.url.startswith(READ_ONLY):
                self.fs.ls(self.root, detail=False)  # `find` would return nothing for a server that does not answer
            found: dict[str, dict[str, Any]] = self.fs.find(self.root, detail=True)
        prefix = self.root.rstrip("/") + "/"
        for name in sorted(found):
            yield name.removeprefix(prefix) if name.startswith(prefix) else name.rsplit("/", 1)[-1], found.pop(name)

    def path(self, key: str) -> str:
        """Return the path of `key` in `fs`."""
        return f"{self.root.rstrip('/')}/{key}"


def connect(url: str) -> Storage:
    """Open the folder at `url` without sending a request yet.

    A user and a password may stand in `url` or, for a web server, in the file that `$NETRC` names. Raises `SetupError`
    when the protocol is unknown or its package is not installed.
    """
    protocol = url.split("://", 1)[0]
    url, login = login_for(url.rstrip("/"))
    try:
        if login is None:
            fs, root = fsspec.core.url_to_fs(url)
        elif protocol in READ_ONLY:
            fs, root = fsspec.core.url_to_fs(url, client_kwargs={"headers": login.header})
        else:
            fs, root = fsspec.core.url_to_fs(url, username=login.user, password=login.password)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        advice = install_hint(extra) if extra else clause(error)
        raise SetupError(f"{protocol}:// needs a package that is not installed: {advice}.") from error
    except Exception as error:  # some file systems connect at once, and each raises its own classes
        raise SetupError(f'"{url}" cannot be used: {clause(error)}.') from error
    return Storage(url, fs, root)


def require_writable(storage: Storage) -> None:
    """Raise `SetupError` when nothing can be written to `storage`."""
    if storage.url.startswith(READ_ONLY):
        raise SetupError(f'Results cannot be written to "{storage.url}"; name a folder or an object store.')
    with explained(storage.url):
        storage.write(".solstice/probe", b"")
        storage.delete(".solstice/probe")


def clause(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class, without a full stop."""
    return first_line(error).rstrip(".")


class explained:  # noqa: N801 (reads like a function in a `with`)
    """Turn any error of a store into a `SetupError` with one sentence."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise SetupError(f'There is nothing at "{self._url}".') from error
        if isinstance(error, PermissionError) or (error and type(error).__name__ == "NoCredentialsError"):
            raise SetupError(f'Access to "{self._url}" was denied; check the credentials ({clause(error)}).') from error
        if isinstance(error, Exception) and not isinstance(error, SetupError):
            raise SetupError(f'"{self._url}" cannot be used: {clause(error)}.') from error
