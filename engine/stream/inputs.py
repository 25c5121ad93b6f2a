"""Where jobs may read and results may go: only under the roots that the worker was given.

Local files are checked on what was really opened, so that neither `..` nor a link swapped at the right moment leads
out. Object stores and web servers have no links; their names are compared part by part.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import fsspec

from engine.errors import SetupError, SkipImage
from engine.system.storage import READ_ONLY, Storage, connect

# Trying again does not make a path shorter or a socket a file.
_NEVER = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}
_PASSING_STATUS = (408, 425, 429)


class InputRoot(Protocol):
    """A place that jobs may read from."""

    def uri(self, name: str) -> str:
        """Name something below this root."""
        ...

    def read(self, uri: str, max_bytes: int) -> bytes | None:
        """Give the bytes at `uri`, or None when it is not under this root.

        Raises `SkipImage` when it is there and cannot be an image, and `OSError` when trying again may help.
        """
        ...


class Inputs:
    """All the places that jobs may read from."""

    def __init__(self, roots: Sequence[str], max_bytes: int) -> None:
        """Open each root: a folder or a URL. Raises `SetupError` for one that cannot be used."""
        self._roots = [_input_root(root) for root in roots]
        self._max_bytes = max_bytes

    def read(self, uri: str) -> bytes:
        """Give the bytes at `uri`, or at a name relative to the first root.

        Raises `SkipImage` when it lies outside, is missing or is too large, and `OSError` when trying again may help.
        """
        if not self._roots:
            raise SkipImage("this worker was given no --input-root, so a job must carry its image itself")
        if "://" not in uri and not uri.startswith("/"):
            uri = self._roots[0].uri(uri)
        for root in self._roots:
            data = root.read(uri, self._max_bytes)
            if data is not None:
                return data
        raise SkipImage("source is not under any --input-root of this worker")


def _input_root(root: str) -> InputRoot:
    if "://" not in root or root.startswith("file://"):
        return LocalInput(Path(local_path(root)))
    storage = connect(root)
    return WebInput(storage.url) if storage.url.startswith(READ_ONLY) else StoreInput(storage)


def local_path(uri: str) -> str:
    """Return the path in a `file://` URI, or `uri` itself when it is a path; raises `SkipImage` for a malformed URI."""
    if not uri.startswith("file://"):
        return uri
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
        raise SkipImage("source is not a valid file URI")
    return unquote(parts.path)


class LocalInput:
    """A folder that jobs may read from."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise SetupError(f"The input root {root} is not a folder.")
        self._root = Path(os.path.realpath(root))
        self._as_given = Path(os.path.abspath(root))  # noqa: PTH100 (resolve would follow links)

    def uri(self, name: str) -> str:
        """Name a file below this root."""
        return f"{self._as_given}/{name}"

    def read(self, uri: str, max_bytes: int) -> bytes | None:
        """Read a regular file that lies under the root once all links are followed."""
        if "://" in uri and not uri.startswith("file://"):
            return None
        path = local_path(uri)
        if "\0" in path:
            raise SkipImage("source is not a valid path")
        normal = os.path.normpath(path)
        if not (_is_below(normal, self._as_given) or _is_below(normal, self._root)):
            return None
        try:
            # A pipe must not block the open, and a link at the end is judged below like any other.
            descriptor = os.open(normal, os.O_RDONLY | os.O_NONBLOCK)
        except FileNotFoundError:
            raise SkipImage("source does not exist") from None
        except OSError as error:
            if error.errno in _NEVER:
                raise SkipImage(f"source cannot be read: {error.strerror}") from None
            raise
        try:
            if not _is_below(os.readlink(f"/proc/self/fd/{descriptor}"), self._root):  # noqa: PTH115
                return None
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise SkipImage("source is not a regular file")
            _check_size(info.st_size, max_bytes)
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(max_bytes + 1)
        finally:
            os.close(descriptor)


class WebInput:
    """A folder of a web server that jobs may read from."""

    def __init__(self, url: str) -> None:
        self._url = url
        # A redirect would lead out of what was allowed.
        self._fs: Any = fsspec.filesystem(urlsplit(url).scheme, allow_redirects=False)

    def uri(self, name: str) -> str:
        """Name a file below this root."""
        return f"{self._url}/{name}"

    def read(self, uri: str, max_bytes: int) -> bytes | None:
        """Read what has this URL, no more than `max_bytes` of it, whatever the server says and sends."""
        if _key_below(uri, self._url) is None:
            return None
        try:
            data = self._fetch(uri, max_bytes + 1)
        except FileNotFoundError:
            raise SkipImage("source does not exist") from None
        except SkipImage:
            raise
        except Exception as error:
            status = getattr(error, "status", 500)
            if 400 <= status < 500 and status not in _PASSING_STATUS:
                raise SkipImage(f"source cannot be read: status {status}") from None
            raise OSError(str(error) or type(error).__name__) from error
        _check_size(len(data), max_bytes)
        return data

    def _fetch(self, url: str, max_bytes: int) -> bytes:
        # A stream, of which fsspec does not ask the size first: it takes every failure of that for a missing file.
        with self._fs.open(url, block_size=0, size=1) as file:
            if file.r.status != 200:
                raise SkipImage(f"source is answered with status {file.r.status}; redirects are not followed")
            return _at_most(file, max_bytes)


class StoreInput:
    """A prefix of an object store that jobs may read from."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def uri(self, name: str) -> str:
        """Name an object below this root."""
        return f"{self._storage.url}/{name}"

    def read(self, uri: str, max_bytes: int) -> bytes | None:
        """Read an object whose name begins with the root, part by part."""
        key = _key_below(uri, self._storage.url)
        if key is None:
            return None
        try:
            size = self._storage.fs.info(self._storage.path(key)).get("size")
            if size is not None:
                _check_size(int(size), max_bytes)
            data = self._storage.read(key)
        except FileNotFoundError:
            raise SkipImage("source does not exist") from None
        except PermissionError as error:
            raise SkipImage(f"source cannot be read: {error}") from None
        except SkipImage:
            raise
        except Exception as error:  # each store has its own kinds
            raise OSError(str(error)) from error
        _check_size(len(data), max_bytes)
        return data


def _key_below(uri: str, url: str) -> str | None:
    """Give what follows `url` in `uri`, or None when it is not below; raises `SkipImage` when it leads out again."""
    if not uri.startswith(url + "/"):
        return None
    key = uri.removeprefix(url + "/")
    if any(part in ("..", ".") for part in unquote(key).replace("\\", "/").split("/")):
        raise SkipImage("source leads out of its root")
    return key


def _at_most(file: Any, num_bytes: int) -> bytes:
    """Read until the end, or until there are `num_bytes`."""
    parts: list[bytes] = []
    left = num_bytes
    while left > 0 and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _check_size(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise SkipImage(f"source has {num_bytes:,} bytes, over the limit of {max_bytes:,} (--max-source-bytes)")


def _is_below(path: str, root: Path) -> bool:
    return path.startswith(f"{str(root).rstrip('/')}/")
