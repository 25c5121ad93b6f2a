"""A sink into an object store that mirrors the archive, with the manifest beside the results."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.archive.manifest import FOLDER, Manifest
from engine.errors import SetupError, StopRun
from engine.ports import Found
from engine.records import Encoded, Failed, Outcome, Record, Stored
from engine.system.storage import Storage, require_writable

_UPLOAD_EVERY_S = 30.0
_LOCK_EXPIRES_S = 4 * _UPLOAD_EVERY_S


class RemoteSink:
    """Puts each result below `storage`; an object appears whole or not at all."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._found = {key: Found(num_bytes=int(info["size"]), changed_s=None) for key, info in storage.find().items()}

    def store(self, record: Record[Encoded]) -> Stored:
        """Put one result; safe from several threads. Raises `StopRun` when the store refuses it."""
        output = record.origin.output
        encoded = record.payload
        try:
            self._storage.write(output, encoded.data)
        except Exception as error:  # each store has its own kinds; after fsspec's retries none is about this image
            raise StopRun(
                f"Cannot write to {self._storage.url}: {error}; run the same command again to go on."
            ) from error
        return Stored.of(encoded, output)

    def reject(self, failed: Failed) -> None:
        """Do nothing: the manifest keeps failures."""

    def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Do nothing: the manifest keeps outcomes."""
        return outcomes

    def find(self, output: str) -> Found | None:
        """Tell what was at `output` when the run began."""
        return self._found.get(output)


@contextmanager
def remote_manifest(storage: Storage) -> Iterator[Manifest]:
    """Keep the manifest of `storage` in a temporary folder, copied from there and back every half minute.

    After a crash the last half minute is translated again, with the same result. A lock object keeps a second run out
    as far as object stores allow: two that start within the same second may both get in, and overwrite each other's
    equal results. Raises `SetupError` when another run holds the lock.
    """
    require_writable(storage)
    with tempfile.TemporaryDirectory() as folder, _lock(storage):
        local = Path(folder) / FOLDER / "manifest.sqlite"
        local.parent.mkdir()
        with suppress(FileNotFoundError):
            local.write_bytes(storage.read(f"{FOLDER}/manifest.sqlite"))
        with Manifest(Path(folder)) as manifest:
            stop = threading.Event()

            def upload() -> None:
                storage.write(f"{FOLDER}/manifest.sqlite", manifest.snapshot())

            def upload_now_and_then() -> None:
                while not stop.wait(_UPLOAD_EVERY_S):
                    upload()
                    _take_lock(storage)

            uploader = threading.Thread(target=upload_now_and_then, name="manifest", daemon=True)
            uploader.start()
            try:
                yield manifest
            finally:
                stop.set()
                uploader.join()
                manifest.commit()
                upload()


@contextmanager
def _lock(storage: Storage) -> Iterator[None]:
    try:
        owner, taken_s = storage.read(f"{FOLDER}/lock").decode().rsplit(" ", 1)
    except FileNotFoundError:
        owner, taken_s = "", "0"
    if time.time() - float(taken_s) < _LOCK_EXPIRES_S:
        raise SetupError(
            f"Another run ({owner}) is writing to {storage.url}; "
            f"wait for it, or for {_LOCK_EXPIRES_S:.0f} s if it died."
        )
    _take_lock(storage)
    try:
        yield
    finally:
        storage.delete(f"{FOLDER}/lock")


def _take_lock(storage: Storage) -> None:
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    storage.write(f"{FOLDER}/lock", f"{owner} {time.time():.0f}".encode())
