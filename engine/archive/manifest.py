"""What became of each input, in an SQLite database inside the output folder: the memory of interrupted runs."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import SetupError, StopRun
from engine.system.files import LinkNotFollowed, open_within

FOLDER = ".solstice"
"""Folder inside the output folder that holds the manifest and its lock."""

_VERSION = 1

_SCHEMA = f"""
CREATE TABLE image (
    key TEXT PRIMARY KEY,
    identity TEXT NOT NULL,  -- size and time of the input
    recipe TEXT NOT NULL,    -- hash of model and settings
    state TEXT NOT NULL CHECK (state IN ('done', 'failed')),
    output TEXT,             -- path relative to the output folder
    num_bytes INTEGER,       -- of the output
    stage TEXT,              -- where it failed
    error TEXT,
    notes TEXT NOT NULL,     -- one a line
    run INTEGER NOT NULL,
    finished_s REAL NOT NULL -- seconds since 1970
) WITHOUT ROWID;
CREATE INDEX failed ON image (run, key) WHERE state = 'failed';
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    started_s REAL NOT NULL,
    settings TEXT NOT NULL,
    recipe TEXT NOT NULL
);
PRAGMA user_version = {_VERSION};
"""

_COMMIT_EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEntry:
    """What the manifest keeps of one input."""

    key: str
    identity: str
    recipe: str
    output: str | None = None
    num_bytes: int | None = None
    stage: str | None = None
    error: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """`done` or `failed`."""
        return "done" if self.error is None else "failed"


class Manifest:
    """The manifest of one output folder, locked against other runs from `open` to `close`.

    Written from one thread, read from another. Entries are committed about twice a second and at the end; after a
    crash the last half second of work is done again, with the same result.
    """

    def __init__(self, dst: Path) -> None:
        self.root = dst
        """The folder that has the manifest's folder in it."""
        self._folder = dst / FOLDER
        self._pending: list[ManifestEntry] = []
        self._committed_s = time.monotonic()
        self.run = 0
        self.created_s = 0.0
        """When this folder's first run started, in seconds since 1970."""

    def __enter__(self) -> Self:
        """Create or open the database; raises `SetupError` when that fails or another run holds it."""
        with ExitStack() as opened:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                lock = open_within(self.root, self._folder / "lock", os.O_RDWR | os.O_CREAT, make=True)
                opened.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._require_no_links()
            except BlockingIOError:
                raise SetupError(
                    f"Another run is writing to {self.root}; wait for it or choose another folder."
                ) from None
            except OSError as error:
                raise SetupError(f"Cannot write to {self.root}: {error.strerror}.") from error
            try:
                self._writer = opened.enter_context(closing(self._connect()))
                self._reader = opened.enter_context(closing(self._connect()))
            except sqlite3.Error as error:
                raise SetupError(
                    f"The manifest {self._folder / 'manifest.sqlite'} cannot be used ({error}); "
                    "move it away to start anew."
                ) from error
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, close and unlock; an error on the way out never hides the one that led here."""
        try:
            self.commit()
        except StopRun:
            if error is None:
                raise
        finally:
            self._opened.close()

    def start_run(self, settings: str, recipe: str) -> None:
        """Note that a run with these settings begins."""
        with self._guarded():
            self._writer.execute(
                "INSERT INTO run (started_s, settings, recipe) VALUES (?, ?, ?)", (time.time(), settings, recipe)
            )
            self._writer.commit()
            self.run, self.created_s = self._writer.execute("SELECT max(id), min(started_s) FROM run").fetchone()

    def find(self, key: str) -> ManifestEntry | None:
        """What is known of `key` from the last commit; raises `StopRun` when the database cannot be read."""
        with self._guarded():
            return _find(self._reader, key)

    def record(self, entry: ManifestEntry) -> None:
        """Keep `entry`, durable from the next commit on; raises `StopRun` when the disk does not take it."""
        self._pending.append(entry)
        if time.monotonic() - self._committed_s >= _COMMIT_EVERY_S:
            self.commit()

    def commit(self) -> None:
        """Make all recorded entries durable; raises `StopRun` when the disk does not take them."""
        rows = [
            (
                e.key, e.identity, e.recipe, e.state, e.output, e.num_bytes, e.stage, e.error,
                "\n".join(e.notes), self.run, time.time(),
            )
            for e in self._pending
        ]  # fmt: skip
        with self._guarded():
            self._writer.executemany(f"INSERT OR REPLACE INTO image VALUES ({', '.join('?' * 11)})", rows)
            self._writer.commit()
        self._pending.clear()
        self._committed_s = time.monotonic()

    def snapshot(self) -> bytes:
        """Give the whole database as of the last commit, as one consistent file; from any thread."""
        with closing(self._connect()) as reader, closing(sqlite3.connect(":memory:")) as copy:
            reader.backup(copy)
            return copy.serialize()

    def remarks(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Give (key, notes) for each input that this run translated with something to know."""
        for key, notes in self._reader.execute(
            "SELECT key, notes FROM image WHERE state = 'done' AND notes != '' AND run = ? ORDER BY key", (self.run,)
        ):
            yield key, tuple(notes.split("\n"))

    def failures(self) -> Iterator[tuple[str, str, str]]:
        """Give (key, stage, error) for each input that failed in this run."""
        yield from self._reader.execute(
            "SELECT key, stage, error FROM image WHERE state = 'failed' AND run = ? ORDER BY key", (self.run,)
        )

    def _require_no_links(self) -> None:
        """Raise `LinkNotFollowed` when a file that SQLite is about to open is a symbolic link."""
        for suffix in ("", "-wal", "-shm", "-journal"):
            path = self._folder / f"manifest.sqlite{suffix}"
            if path.is_symlink():
                raise LinkNotFollowed(path.name)

    def _connect(self) -> sqlite3.Connection:
        with ExitStack() as opened:
            connection = sqlite3.connect(self._folder / "manifest.sqlite", check_same_thread=False)
            opened.callback(connection.close)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # never corrupt; at worst the last commits are done again
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                connection.executescript(_SCHEMA)
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"it has version {version}, this Solstice writes version {_VERSION}")
            opened.pop_all()
        return connection

    def _guarded(self) -> _StopOnError:
        return _StopOnError(self.root)


class ManifestReader:
    """Looks into the manifest below `root`, which another process has open and may be writing to."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._connection = sqlite3.connect(root / FOLDER / "manifest.sqlite", check_same_thread=False)

    def find(self, key: str) -> ManifestEntry | None:
        """What is known of `key` from the last commit; raises `StopRun` when the database cannot be read."""
        with _StopOnError(self._root):
            return _find(self._connection, key)

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()


def _find(connection: sqlite3.Connection, key: str) -> ManifestEntry | None:
    row = connection.execute(
        "SELECT key, identity, recipe, output, num_bytes, stage, error FROM image WHERE key = ?", (key,)
    ).fetchone()
    if row is None:
        return None
    key, identity, recipe, output, num_bytes, stage, error = row
    return ManifestEntry(
        key=key,
        identity=identity,
        recipe=recipe,
        output=output,
        num_bytes=num_bytes,
        stage=stage,
        error=error,
    )


class _StopOnError:
    """Turns an SQLite error into `StopRun` with a sentence."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise StopRun(f"The manifest in {self._root} cannot be used any more: {error}.") from error
