"""Read the images of jobs, only below the roots that the worker was given.

A local file is checked after it is opened, so that neither `..` nor a link swapped in meanwhile leads out. Object
stores have no links; their keys are compared part by part. Web servers are in `engine.stream.web`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from engine.errors import SetupError, SkipImage
from engine.stream.web import WebInput, require_plain
from engine.system.storage import READ_ONLY, Storage, connect

# Errors that stay when the read is repeated.
_NEVER = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}


class InputRoot(Protocol):
    """A folder, object store prefix or web folder that jobs may read from."""

    def uri(self, name: str) -> str:
        """Return the URI of `name` below this root."""
        ...

    def read(self, uri: str, max_bytes: int) -> bytes | None:
        """Return the bytes at `uri`, or None when it is not below this root.

        Raises `SkipImage` when this one can never be read, and `OSError` when trying again may help.
        """
        ...


class Inputs:
    """All roots that jobs may read from."""

    def __init__(
        self,
        roots: Sequence[str],
        max_bytes: int,
        private_hosts: Collection[str] = (),
        timeout_s: float = 30.0,
    ) -> None:
        """Open each root: a folder or a URL. Raises `SetupError` for one that cannot be used.

        `private_hosts` are names of web servers that may have private addresses; `timeout_s` limits the whole body of
        an image from a web server.
        """
        self._roots = [_input_root(root, private_hosts, timeout_s) for root in roots]
        self._max_bytes = max_bytes

    def read(self, uri: str) -> bytes:
        """Return the bytes at `uri`, or at a name relative to the first root.

        Raises `SkipImage` when it lies outside, is missing or is too large, and `OSError` when trying again may help.
        """
        if not self._roots:
            raise SkipImage("this worker was given no --input-root, so a job must carry its image itself")
        if "://" not in uri and not uri.startswith("/"):
            uri = self._roots[0].uri(uri)
        for root in self._roots:
            data = root.read(uri, self._max_bytes)
            if data is not None:
                _check_size(len(data), self._max_bytes)
                return data
        raise SkipImage("source is not under any --input-root of this worker")


def _input_root(root: str, private_hosts: Collection[str], timeout_s: float) -> InputRoot:
    if "://" not in root or root.startswith("file://"):
        return LocalInput(Path(local_path(root)))
    if root.startswith(READ_ONLY):
        return WebInput(root, private_hosts, timeout_s)
    return StoreInput(connect(root))


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
        """Return the path of a file below this root."""
        return f"{self._as_given}/{name}"

    def read(self, uri: str, max_bytes: int) -> bytes | None:
        """Read a regular file that is below the root after all links are followed."""
        if "://" in uri and not uri.startswith("file://"):
            return None
        path = local_path(uri)
        if "\0" in path:
            raise SkipImage("source is not a valid path")
        normal = os.path.normpath(path)
        if not (_is_below(normal, self._as_given) or _is_below(normal, self._root)):
            return None
        try:
            # Without O_NONBLOCK, opening a pipe would wait for a writer. Links are checked on what was opened.
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


class StoreInput:
    """A prefix of an object store that jobs may read from."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def uri(self, name: str) -> str:
        """Return the URI of an object below this root."""
        return f"{self._storage.url}/{name}"

    def read(self, uri: str, max_bytes: int) -> bytes | None:
        """Read an object whose key begins with the root, part by part."""
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
        except Exception as error:  # every store has its own classes
            raise OSError(str(error)) from error
        return data


def _key_below(uri: str, url: str) -> str | None:
    """Return what follows `url` in `uri`, or None when it is not below; raises `SkipImage` when it leads out again."""
    if not uri.startswith(url + "/"):
        return None
    key = uri.removeprefix(url + "/")
    require_plain(key)
    for name in (key, unquote(key), unquote(unquote(key))):
        if any(part in ("..", ".") for part in name.replace("\\", "/").split("/")):
            raise SkipImage("source leads out of its root")
    return key


def _check_size(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise SkipImage(f"source has {num_bytes:,} bytes, over the limit of {max_bytes:,} (--max-source-bytes)")


def _is_below(path: str, root: Path) -> bool:
    return path.startswith(f"{str(root).rstrip('/')}/")
