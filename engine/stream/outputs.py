"""Where results are stored, with a receipt for each."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import SetupError, SkipImage
from engine.stream.inputs import (
    _is_below,
    _local_path,
)
from engine.system.files import write_atomically
from engine.system.storage import Storage, connect, require_writable

HIDDEN = ".solstice"
"""Folder under an output root for what is not a result."""


_STALE_S = 3600.0  # an unfinished file of this age belongs to a worker that was killed


class Output:
    """The place that results go to."""

    def __init__(self, root: str) -> None:
        """Open it, a folder (made if it is missing) or the URL of an object store. Raises `SetupError`."""
        self._remote: Storage | None = None
        if "://" in root and not root.startswith("file://"):
            self._remote = connect(root)
            require_writable(self._remote)
            return
        self._root = Path(os.path.abspath(_local_path(root)))  # noqa: PTH100
        self._partial = self._root / HIDDEN / "partial"
        probe = self._root / HIDDEN / "probe"
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
            write_atomically(probe, b"", self._partial)
            probe.unlink(missing_ok=True)  # another worker that starts now was faster
        except OSError as error:
            raise SetupError(f"Results cannot be written to {self._root}: {error.strerror}.") from error
        self._sweep()

    def uri(self, name: str) -> str:
        """Give the URI of the result called `name`."""
        if self._remote is not None:
            return f"{self._remote.url}/{name}"
        return (self._root / name).as_uri()

    def write(self, name: str, data: bytes) -> None:
        """Store `data` under the relative `name`: whole, flushed, or not at all.

        Raises `SkipImage` when this name can never be written, and `OSError` when nothing can be at the moment.
        """
        check_name(name)
        if self._remote is not None:
            with _store_errors():
                self._remote.write(name, data)
            return
        path = self._root / name
        if not self._partial.is_dir():  # making it again would hide that a disk was unplugged
            raise OSError(f"{self._root} is gone")
        if not _is_below(os.path.realpath(path.parent) + "/", Path(os.path.realpath(self._root))):
            raise SkipImage("output leads out of the output root")
        try:
            write_atomically(path, data, self._partial, within=self._root)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise SkipImage(f"output cannot be written: {error.strerror}") from error

    def size(self, name: str) -> int | None:
        """Give the bytes of what is stored under `name`; None when there is nothing, or nobody can tell."""
        try:
            if self._remote is not None:
                with _store_errors():
                    return int(self._remote.fs.info(self._remote.path(name))["size"])
            return (self._root / name).stat().st_size
        except OSError:
            return None

    def read_receipt(self, digest: str) -> bytes | None:
        """Give what `write_receipt` kept for `digest`; None when there is nothing, or nobody can tell."""
        try:
            if self._remote is not None:
                with _store_errors():
                    return self._remote.read(_receipt(digest))
            return (self._root / _receipt(digest)).read_bytes()
        except OSError:
            return None

    def write_receipt(self, digest: str, data: bytes) -> None:
        """Keep `data` for `digest`, not flushed: one that is lost to a crash means that a job is done again."""
        if self._remote is not None:
            with suppress(Exception):  # a result without a receipt is a result all the same
                self._remote.write(_receipt(digest), data)
            return
        with suppress(OSError):
            path = self._root / _receipt(digest)
            write_atomically(path, data, self._partial, within=self._root, durable=False)

    def _sweep(self) -> None:
        """Delete the unfinished files of workers that were killed."""
        for path in self._partial.iterdir():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_S:
                    path.unlink()


@contextmanager
def _store_errors() -> Iterator[None]:
    """Raise as `OSError` whatever a store raises: each has its own kinds, for the same trouble."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error)) from error


def check_name(name: str) -> None:
    """Raise `SkipImage` for a relative name that leaves its root, hides, or that no file system takes."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name or "\\" in name:
        raise SkipImage("output must be a relative name without . or .. in it")
    if parts[0] == HIDDEN:
        raise SkipImage(f"output must not lie in {HIDDEN}")
    if any(len(part.encode()) > 255 for part in parts):
        raise SkipImage("a part of output is longer than 255 bytes")


def _receipt(digest: str) -> str:
    return f"{HIDDEN}/receipts/{digest[:2]}/{digest[2:]}.json"
