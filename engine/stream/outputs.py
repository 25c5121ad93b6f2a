"""Store results, with a receipt for each, in a folder or an object store."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import SetupError, SkipImage
from engine.stream.inputs import local_path
from engine.system.files import LinkNotFollowed, folder_within, open_within, write_atomically
from engine.system.storage import Storage, connect, require_writable

HIDDEN = ".solstice"
"""Folder below an output root for everything that is not a result."""

_STALE_S = 3600.0  # an unfinished file of this age belongs to a worker that was killed
_MAX_RECEIPT_BYTES = 1 << 20


class Output:
    """A local folder or an object store that holds results. No link below a local folder is followed."""

    def __init__(self, root: str) -> None:
        """Open `root`, a folder (created if missing) or the URL of an object store. Raises `SetupError`."""
        self._remote: Storage | None = None
        if "://" in root and not root.startswith("file://"):
            self._remote = connect(root)
            require_writable(self._remote)
            return
        self._root = Path(os.path.abspath(local_path(root)))  # noqa: PTH100 (resolve would follow links)
        self._partial = self._root / HIDDEN / "partial"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with folder_within(self._root, self._partial, make=True):
                pass
            self._probe()
            self._sweep()
        except OSError as error:
            raise SetupError(f"Results cannot be written to {self._root}: {error.strerror}.") from error

    @property
    def hidden_folder(self) -> Path | None:
        """Folder for everything that is not a result; None in an object store."""
        return None if self._remote is not None else self._root / HIDDEN

    def uri(self, name: str) -> str:
        """Return the URI of the result called `name`."""
        if self._remote is not None:
            return f"{self._remote.url}/{name}"
        return (self._root / name).as_uri()

    def write(self, name: str, data: bytes) -> None:
        """Store `data` under the relative `name`: whole and flushed, or not at all.

        Raises `SkipImage` when this name can never be written, and `OSError` when nothing can be at the moment.
        """
        check_name(name)
        if self._remote is not None:
            with _store_errors():
                self._remote.write(name, data)
            return
        self._require_partial_folder()
        try:
            write_atomically(self._root / name, data, self._partial, within=self._root)
        except (FileExistsError, NotADirectoryError, IsADirectoryError, LinkNotFollowed) as error:
            raise SkipImage(f"output cannot be written: {error.strerror}") from error

    def size(self, name: str) -> int | None:
        """Return the number of bytes stored under `name`, or None when there are none or it cannot be determined."""
        try:
            if self._remote is not None:
                with _store_errors():
                    return int(self._remote.fs.info(self._remote.path(name))["size"])
            with folder_within(self._root, (self._root / name).parent) as folder:
                return os.stat(Path(name).name, dir_fd=folder, follow_symlinks=False).st_size
        except OSError:
            return None

    def read_receipt(self, digest: str) -> bytes | None:
        """Return what `write_receipt` stored for `digest`, or None when there is nothing or it cannot be read."""
        try:
            if self._remote is not None:
                with _store_errors():
                    return self._remote.read(_receipt(digest))
            descriptor = open_within(self._root, self._root / _receipt(digest), os.O_RDONLY)
            with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor has no path)
                return file.read(_MAX_RECEIPT_BYTES)
        except OSError:
            return None

    def write_receipt(self, digest: str, data: bytes) -> None:
        """Store `data` for `digest` without flushing: a receipt lost in a crash costs one repeated translation."""
        if self._remote is not None:
            with suppress(Exception):  # a result without a receipt is still a result
                self._remote.write(_receipt(digest), data)
            return
        with suppress(OSError):
            self._require_partial_folder()
            write_atomically(self._root / _receipt(digest), data, self._partial, within=self._root, durable=False)

    def _require_partial_folder(self) -> None:
        """Raise `OSError` when the folder for unfinished files is gone; a new one would hide an unplugged disk."""
        try:
            with folder_within(self._root, self._partial):
                pass
        except FileNotFoundError:
            raise OSError(f"{self._root} is gone") from None

    def _probe(self) -> None:
        """Raise `OSError` when nothing can be written."""
        probe = self._root / HIDDEN / "probe"
        write_atomically(probe, b"", self._partial, within=self._root)
        with folder_within(self._root, probe.parent) as folder, suppress(FileNotFoundError):
            os.unlink(probe.name, dir_fd=folder)  # another worker that starts now may have removed it first

    def _sweep(self) -> None:
        """Delete the unfinished files of workers that were killed."""
        with folder_within(self._root, self._partial) as folder:
            readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
            try:
                for name in os.listdir(readable):  # noqa: PTH208 (a descriptor has no path)
                    with suppress(OSError):
                        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
                        if time.time() - info.st_mtime > _STALE_S:
                            os.unlink(name, dir_fd=folder)
            finally:
                os.close(readable)


@contextmanager
def _store_errors() -> Iterator[None]:
    """Raise `OSError` for any error of an object store, since every store has its own classes."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(str(error)) from error


def check_name(name: str) -> None:
    """Raise `SkipImage` for a relative name that leaves its root, is hidden, or that no file system accepts."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name or "\\" in name:
        raise SkipImage("output must be a relative name without . or .. in it")
    if parts[0] == HIDDEN:
        raise SkipImage(f"output must not lie in {HIDDEN}")
    if any(len(part.encode()) > 255 for part in parts):
        raise SkipImage("a part of output is longer than 255 bytes")


def _receipt(digest: str) -> str:
    return f"{HIDDEN}/receipts/{digest[:2]}/{digest[2:]}.json"
