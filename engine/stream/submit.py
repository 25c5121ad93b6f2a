"""Put an archive on a jobs topic, resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import SkipImage, StopRun
from engine.sources.archive import printable
from engine.sources.listing import Input, Listing, list_inputs
from engine.sources.remote import list_objects
from engine.storage import connect, is_url
from engine.stream.connection import Connection
from engine.stream.jobs import data_uri
from engine.stream.journal import Journal
from engine.stream.kafka_client import make_producer

_BATCH = 500
"""Jobs between two flushes: what an interruption sends again."""


@dataclass(kw_only=True)
class Submitted:
    """What a run of `submit` did."""

    sent: int = 0
    known: int = 0
    """Sent by an earlier run."""
    refused: int = 0
    """Cannot be sent: unreadable, or with a name that is not UTF-8."""


def submit(
    src: str,
    connection: Connection,
    topic: str,
    journal: Journal,
    fields: dict[str, Any],
    progress: Callable[[Submitted], None] | None = None,
) -> Submitted:
    """Send a job for each image of `src` (folder, image, list, tar, zip, URL) that `journal` does not know.

    `fields` are added to each job. Members of a tar or zip travel in their jobs, everything else as a URI. Raises
    `SetupError` when `src` or the brokers cannot be reached, and `StopRun` when a job is not acknowledged.
    """
    producer = make_producer(connection, linger_ms=20)
    done = Submitted()
    pending: list[tuple[str, Any]] = []
    try:
        for item in _listing(src):
            id = job_id(item)
            if id in journal:
                done.known += 1
                continue
            try:
                job = {"id": id, "source": _source(src, item), "output": item.key, **fields}
                value = json.dumps(job, ensure_ascii=False).encode()
            except (SkipImage, OSError, UnicodeEncodeError):
                done.refused += 1
                continue
            pending.append((id, producer.send(topic, value=value, key=id.encode())))
            if len(pending) >= _BATCH:
                _flush(pending, journal, done, progress)
        _flush(pending, journal, done, progress)
        return done
    finally:
        producer.close(5)


def job_id(item: Input) -> str:
    """Name a job after its image and the version of it, so that a changed photo is a new job."""
    return f"{printable(item.key)[-400:]}#{item.identity}"


def _listing(src: str) -> Listing:
    return list_objects(connect(src)) if is_url(src) else list_inputs(Path(src))


def _source(src: str, item: Input) -> str:
    if item.path is not None:
        return item.path.absolute().as_uri()
    if is_url(src):
        return f"{src.rstrip('/')}/{item.key}"
    return data_uri(item.read())


def _flush(
    pending: list[tuple[str, Any]], journal: Journal, done: Submitted, progress: Callable[[Submitted], None] | None
) -> None:
    """Wait for acknowledgements, in order, and remember them."""
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
                f"The brokers did not take the job {id}: {error or type(error).__name__}; "
                "the same command goes on from here."
            ) from error
        yield id
