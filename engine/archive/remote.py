"""A sink into an object store that mirrors the archive, with the manifest beside the results."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.archive.manifest import FOLDER, EarlierRuns, Manifest, read_earlier_runs
from engine.errors import SetupError, StopRun
from engine.ports import Found
from engine.records import Encoded, Failed, Outcome, Record, Stored
from engine.system.storage import Storage, clause, explained, require_writable

log = logging.getLogger(__name__)

_UPLOAD_EVERY_S = 30.0
_UPLOAD_SHARE = 0.1
"""Share of the time that uploads may take: a manifest of gigabytes is uploaded less often."""

_LOCK_EXPIRES_S = 4 * _UPLOAD_EVERY_S


class RemoteSink:
    """Writes each result below `storage`; an object appears whole or not at all."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._found: dict[str, Found] | None = None

    def store(self, record: Record[Encoded]) -> Stored:
        """Write one result; safe from several threads. Raise `StopRun` when the store refuses it."""
        output = record.origin.output
        encoded = record.payload
        try:
            self._storage.write(output, encoded.data)
        except Exception as error:  # each store raises its own classes; after fsspec's retries none is about one image
            raise StopRun(
                f'Cannot write to "{self._storage.url}": {clause(error)}; run the same command again to continue.'
            ) from error
        if self._found is not None:
            self._found[output] = Found(num_bytes=len(encoded.data), changed_s=None)
        return Stored.of(encoded, output)

    def reject(self, failed: Failed) -> None:
        """Do nothing: failures are in the manifest."""

    def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Do nothing: outcomes are in the manifest."""
        return outcomes

    def close(self) -> None:
        """Do nothing: every stored object is whole."""

    def find(self, output: str) -> Found | None:
        """Return what was at `output` at the first call, or what this run has stored there.

        The first call lists the whole store, so that only the process that plans a run does.
        """
        if self._found is None:
            self._found = {key: Found(num_bytes=int(info["size"])) for key, info in self._storage.find()}
        return self._found.get(output)


def earlier_remote_runs(storage: Storage) -> EarlierRuns:
    """Return what the manifest in `storage` holds, without changing anything; raise `SetupError`."""
    with tempfile.TemporaryDirectory() as folder:
        _download(storage, Path(folder))
        return read_earlier_runs(Path(folder))


def _download(storage: Storage, root: Path) -> None:
    local = root / FOLDER / "manifest.sqlite"
    local.parent.mkdir()
    with explained(storage.url), suppress(FileNotFoundError):
        local.write_bytes(storage.read(f"{FOLDER}/manifest.sqlite"))


@contextmanager
def remote_manifest(storage: Storage) -> Iterator[Manifest]:
    """Open a temporary copy of the manifest in `storage`, which is uploaded every half minute and at the end.

    An upload of more than three seconds makes the next one wait for ten times as long. After a crash the images since
    the last upload are translated again, with the same result. A lock object keeps a
    second run out as far as object stores allow: two that start within the same second may both run, and overwrite
    each other's equal results. Raises `SetupError` when another run holds the lock.
    """
    require_writable(storage)
    with tempfile.TemporaryDirectory() as folder, _lock(storage):
        _download(storage, Path(folder))
        with Manifest(Path(folder)) as manifest:
            stop = threading.Event()

            def upload() -> None:
                copy = Path(folder) / "upload.sqlite"
                manifest.snapshot(copy)
                storage.upload(f"{FOLDER}/manifest.sqlite", copy)

            def upload_regularly() -> None:
                due_s = time.monotonic() + _UPLOAD_EVERY_S
                while not stop.wait(_UPLOAD_EVERY_S):
                    try:
                        _take_lock(storage)
                        started_s = time.monotonic()
                        if started_s < due_s:
                            continue
                        upload()
                        due_s = time.monotonic() + (time.monotonic() - started_s) * (1 / _UPLOAD_SHARE - 1)
                    except Exception as error:  # noqa: BLE001 (each store raises its own classes)
                        log.warning("The manifest in %s is not up to date: %s.", storage.url, clause(error))

            uploader = threading.Thread(target=upload_regularly, name="manifest", daemon=True)
            uploader.start()
            try:
                yield manifest
            finally:
                stop.set()
                uploader.join()
                manifest.commit()
                try:
                    upload()
                except Exception as error:
                    raise StopRun(
                        f'The manifest cannot be written to "{storage.url}": {clause(error)}; run the same command '
                        "again: what is not recorded is converted again."
                    ) from error


@contextmanager
def _lock(storage: Storage) -> Iterator[None]:
    owner, taken_s = "", "0"
    with explained(storage.url), suppress(FileNotFoundError):
        owner, taken_s = storage.read(f"{FOLDER}/lock").decode().rsplit(" ", 1)
    if time.time() - float(taken_s) < _LOCK_EXPIRES_S:
        raise SetupError(
            f'Another run ({owner}) is writing to "{storage.url}"; '
            f"wait for it, or for {_LOCK_EXPIRES_S:.0f} s if it died."
        )
    _take_lock(storage)
    try:
        yield
    finally:
        with suppress(Exception):  # it expires by itself
            storage.delete(f"{FOLDER}/lock")


def _take_lock(storage: Storage) -> None:
    owner = f"process {os.getpid()} on {socket.gethostname()}"
    storage.write(f"{FOLDER}/lock", f"{owner} {time.time():.0f}".encode())
