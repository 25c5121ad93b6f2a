"""Send a job for each image of an archive; an interrupted run is resumed by the next."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from engine.errors import SetupError, SkipImage, StopRun
from engine.listing import Input, Inventory, list_inputs, list_objects, printable
from engine.listing.inputs import UnreadableInput
from engine.listing.left_out import left_out_with_sidecars, require_inputs
from engine.stream.client import make_producer
from engine.stream.connection import Connection
from engine.stream.jobs import data_uri
from engine.system.storage import connect, is_url

_HASH_BYTES = 16


class Journal:
    """A durable set of names on disk, 16 bytes each.

    Opening truncates the file to whole entries, in case a crash left half of one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[bytes] = set()

    def __enter__(self) -> Self:
        """Read or create the file; raises `SetupError` when that fails."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
            self._file.seek(0)
            data = self._file.read()
        except OSError as error:
            raise SetupError(f"The journal {self._path} cannot be used: {error.strerror}.") from error
        whole = len(data) - len(data) % _HASH_BYTES
        self._file.truncate(whole)
        self._known = {data[i : i + _HASH_BYTES] for i in range(0, whole, _HASH_BYTES)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return _hash(name) in self._known

    def __len__(self) -> int:
        return len(self._known)

    def add(self, names: Iterable[str]) -> None:
        """Add `names`; they are durable on return."""
        hashes = [_hash(name) for name in names]
        self._file.write(b"".join(hashes))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._known.update(hashes)

    def clear(self) -> None:
        """Remove all names."""
        self._file.truncate(0)
        self._known.clear()


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:_HASH_BYTES]


_BATCH = 500
"""Jobs between two flushes: what an interruption sends again."""


@dataclass(kw_only=True)
class Submitted:
    """Counts of a run of `submit`."""

    sent: int = 0
    known: int = 0
    """Jobs sent by an earlier run."""
    refused: dict[str, str] = field(default_factory=dict)
    """Images that cannot be sent, with the reason: unreadable, or with a name that is not UTF-8."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Files and folders that are no images to send, by kind; see `engine.listing.Inventory.left_out`."""


def submit(
    src: str,
    connection: Connection,
    topic: str,
    journal: Journal,
    fields: dict[str, Any],
    progress: Callable[[Submitted], None] | None = None,
) -> Submitted:
    """Send a job for each image of `src` (folder, image, list, tar, zip, URL) that is not in `journal`.

    `fields` are added to each job. Members of a tar or zip travel in their jobs, everything else as a URI. Raises
    `SetupError` when `src` or the brokers cannot be reached or `src` has no images, and `StopRun` when a job is not
    acknowledged.
    """
    producer = make_producer(connection, linger_ms=20)
    done = Submitted()
    pending: list[tuple[str, Any]] = []
    try:
        inventory = _listing(src)
        require_inputs(inventory, src)
        done.left_out = left_out_with_sidecars(inventory)
        for item in inventory:
            id = job_id(item)
            if id in journal:
                done.known += 1
                continue
            try:
                job = {"id": id, "source": _source(src, item), "output": item.key, **fields}
                value = json.dumps(job, ensure_ascii=False).encode()
            except (SkipImage, OSError, UnicodeEncodeError) as error:
                done.refused[printable(item.key)] = _reason(error)
                continue
            pending.append((id, producer.send(topic, value=value, key=id.encode())))
            if len(pending) >= _BATCH:
                _flush(pending, journal, done, progress)
        _flush(pending, journal, done, progress)
        return done
    finally:
        producer.close(5)


def job_id(item: Input) -> str:
    """Return a job id made of the image's name and version, so that a changed photo is a new job."""
    return f"{printable(item.key)[-400:]}#{item.identity}"


def _listing(src: str) -> Inventory:
    return list_objects(connect(src)) if is_url(src) else list_inputs(Path(src))


def _source(src: str, item: Input) -> str:
    if isinstance(item, UnreadableInput):
        raise SkipImage(item.reason)
    if item.path is not None:
        return item.path.absolute().as_uri()
    if is_url(src):
        return f"{src.rstrip('/')}/{item.key}"
    return data_uri(item.read())


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "its name is not UTF-8"
    return getattr(error, "strerror", None) or str(error)


def _flush(
    pending: list[tuple[str, Any]], journal: Journal, done: Submitted, progress: Callable[[Submitted], None] | None
) -> None:
    """Wait for acknowledgements in order, and add the acknowledged jobs to the journal."""
    acknowledged: list[str] = []
    try:
        acknowledged.extend(_acknowledged(pending))
    finally:
        journal.add(acknowledged)
        done.sent += len(acknowledged)
        pending.clear()
    if progress:
        progress(done)


def _acknowledged(pending: list[tuple[str, Any]]) -> Iterator[str]:
    for id, future in pending:
        try:
            future.get(timeout=60)
        except Exception as error:
            raise StopRun(
                f"The brokers did not accept the job {id}: {error or type(error).__name__}; "
                "run the same command again to go on from here."
            ) from error
        yield id
