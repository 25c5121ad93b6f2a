"""Read the images of jobs, only below the roots that the worker was given.

A local file is checked after it is opened, so that neither `..` nor a link swapped in meanwhile leads out. Object
stores have no links; their keys are compared part by part. Web servers are in `engine.stream.web`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import fsspec.asyn

from engine.errors import SetupError, SkipImage
from engine.stream.read_memory import NeedsMemory, ReadLimits
from engine.stream.web import ServerOverloaded, SourceTimeout, WebInput, require_plain
from engine.system.storage import READ_ONLY, Storage, connect


class SourceUnavailable(OSError):
    """An input root does not answer, or is overloaded: this says nothing about the image."""

    def __init__(self, reason: str, root: int) -> None:
        super().__init__(reason)
        self.root = root
        """Number of the root, from 0."""


# Errors that stay when the read is repeated.
_NEVER = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO}


class InputRoot(Protocol):
    """A folder, object store prefix or web folder that jobs may read from."""

    def uri(self, name: str) -> str:
        """Return the URI of `name` below this root."""
        ...

    def read(self, uri: str, limits: ReadLimits) -> bytes | None:
        """Return the bytes at `uri`, or None when it is not below this root.

        Raises `SkipImage` when this one can never be read, `NeedsMemory` when it is larger than what may be read now,
        and `OSError` when trying again may help.
        """
        ...

    def answers(self) -> bool:
        """Return whether the root itself can be reached now. May block for a few seconds."""
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
        self._folders = [str(root.folder) for root in self._roots if isinstance(root, LocalInput)]
        self._max_bytes = max_bytes

    def read(self, uri: str) -> bytes:
        """Return the bytes at `uri`, or at a name relative to the first root; see `read_from`."""
        return self.read_from(uri)[0]

    def read_from(
        self, uri: str, now_bytes: int | None = None, more: Callable[[int], bool] = lambda _num_bytes: False
    ) -> tuple[bytes, int]:
        """Return the bytes at `uri`, or at a name relative to the first root, and the number of their root.

        `now_bytes` and `more` are those of `ReadLimits`. Raises `SkipImage` when it lies outside, is missing, too large
        or too slow, `NeedsMemory` when it is larger than what may be read now, `SourceUnavailable` when its root does
        not answer, and `OSError` when trying again may help.
        """
        limits = ReadLimits(self._max_bytes, now_bytes, more)
        if not self._roots:
            raise SkipImage("this worker was given no --input-root, so a job must carry its image itself")
        if "://" not in uri and not uri.startswith("/"):
            uri = self._roots[0].uri(uri)
        for number, root in enumerate(self._roots):
            data = self._read(root, number, uri, limits)
            if data is not None:
                return data, number
        raise SkipImage("source is not under any --input-root of this worker")

    def origin_of(self, uri: str) -> str:
        """Return what serves the image at `uri`: a scheme and host, a bucket, or an input root on a file system."""
        if "://" not in uri and not uri.startswith("/"):
            if not self._roots:
                return ""
            uri = self._roots[0].uri(uri)
        scheme, separator, rest = uri.partition("://")
        if separator and scheme != "file":
            return f"{scheme}://{rest.split('/', 1)[0]}".lower()
        path = rest if separator else uri
        return next((root for root in self._folders if path.startswith(f"{root}/")), "file://")

    def _read(self, root: InputRoot, number: int, uri: str, limits: ReadLimits) -> bytes | None:
        """Read from one root, and tell an image that cannot be read from a root that does not answer."""
        try:
            return root.read(uri, limits)
        except ServerOverloaded as error:
            raise SourceUnavailable(str(error), number) from error
        except OSError as error:
            if not root.answers():
                raise SourceUnavailable(str(error) or type(error).__name__, number) from error
            if isinstance(error, SourceTimeout):
                raise SkipImage(f"{error} (--read-timeout)") from error
            raise


def _input_root(root: str, private_hosts: Collection[str], timeout_s: float) -> InputRoot:
    if "://" not in root or root.startswith("file://"):
        return LocalInput(Path(local_path(root)))
    if root.startswith(READ_ONLY):
        return WebInput(root, private_hosts, timeout_s)
    return StoreInput(connect(root), timeout_s)


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
        self.folder = self._as_given
        """Absolute path, links not followed."""
        self._mount = next((path for path in (self._root, *self._root.parents) if path.is_mount()), None)

    def answers(self) -> bool:
        """Return whether the folder is there, on the file system that was mounted at the start."""
        return self._root.is_dir() and (self._mount is None or self._mount.is_mount())

    def uri(self, name: str) -> str:
        """Return the path of a file below this root."""
        return f"{self._as_given}/{name}"

    def read(self, uri: str, limits: ReadLimits) -> bytes | None:
        """Read a regular file that is below the root after all links are followed."""
        if "://" in uri and not uri.startswith("file://"):
            return None
        path = local_path(uri)
        if "\0" in path:
            raise SkipImage("source is not a valid path")
        normal = os.path.normpath(path)
        if not (_is_below(normal, self._as_given) or _is_below(normal, self._root)):
            return None
        descriptor = self._opened(normal)
        try:
            if not _is_below(os.readlink(f"/proc/self/fd/{descriptor}"), self._root):  # noqa: PTH115
                return None
            info = os.fstat(descriptor)
            if not stat.S_ISREG(info.st_mode):
                raise SkipImage("source is not a regular file")
            limits.admit(info.st_size)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(limits.most + 1)
            limits.admit_so_far(len(data))  # a file may have grown meanwhile
            return data
        finally:
            os.close(descriptor)

    def _opened(self, path: str) -> int:
        """Open a file; raises `SkipImage` if that fails for good and `OSError` if it may succeed later.

        An error that means the file is tried again once the folder is known to be there: it may have come back between
        the two, and the error have been its absence.
        """
        for attempt in (1, 2):
            try:
                # Without O_NONBLOCK, opening a pipe would wait for a writer. Links are checked on what was opened.
                return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            except FileNotFoundError:
                if not self.answers():
                    raise OSError(f"the folder {self._root} is gone") from None
                if attempt == 2:
                    raise SkipImage("source does not exist") from None
            except OSError as error:
                if error.errno not in _NEVER or not self.answers():
                    raise
                if attempt == 2:
                    raise SkipImage(f"source cannot be read: {error.strerror}") from None
        raise AssertionError("the second attempt returns or raises")


class StoreInput:
    """A prefix of an object store that jobs may read from."""

    def __init__(self, storage: Storage, timeout_s: float) -> None:
        """`timeout_s` limits a whole request, where the client of the store allows it."""
        self._storage = storage
        self._timeout_s = timeout_s

    def uri(self, name: str) -> str:
        """Return the URI of an object below this root."""
        return f"{self._storage.url}/{name}"

    def answers(self) -> bool:
        """Return whether the store answers, be it that there is nothing or that access is denied."""
        try:
            self._call("info", self._storage.root)
        except (FileNotFoundError, PermissionError):
            return True
        except Exception:  # noqa: BLE001 (every store has its own classes)
            return False
        return True

    def _call(self, name: str, path: str) -> Any:
        """Call a method of the file system with a time limit."""
        fs = self._storage.fs
        if not getattr(fs, "async_impl", False):
            return getattr(fs, name)(path)
        try:
            return fsspec.asyn.sync(fs.loop, getattr(fs, f"_{name}"), path, timeout=self._timeout_s)
        except TimeoutError as error:
            raise SourceTimeout(f"source was not read within {self._timeout_s:g} s") from error

    def read(self, uri: str, limits: ReadLimits) -> bytes | None:
        """Read an object whose key begins with the root, part by part."""
        key = _key_below(uri, self._storage.url)
        if key is None:
            return None
        try:
            size = self._call("info", self._storage.path(key)).get("size")
            limits.admit(limits.max_bytes if size is None else int(size))
            data: bytes = self._call("cat_file", self._storage.path(key))
        except SourceTimeout:
            raise
        except FileNotFoundError:
            raise SkipImage("source does not exist") from None
        except PermissionError as error:
            raise SkipImage(f"source cannot be read: {error}") from None
        except (SkipImage, NeedsMemory):
            raise
        except Exception as error:  # every store has its own classes
            raise OSError(str(error)) from error
        limits.admit_so_far(len(data))
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


def _is_below(path: str, root: Path) -> bool:
    return path.startswith(f"{str(root).rstrip('/')}/")
