"""The manifest: what became of each input, in an SQLite database inside the output folder."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

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

_COLUMNS = "key, identity, recipe, output, num_bytes, stage, error, notes"

_COMMIT_EVERY_S = 0.5

_MOST_HELD = 100_000
"""Entries that are read at once, some 50 MB; a plan looks up each twice, which takes longer one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEntry:
    """What became of one input."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRuns:
    """What the manifest of an output folder holds before a run."""

    created_s: float = float("inf")
    """Start of the first run, in seconds since 1970; infinite when there was none."""
    entries: Mapping[str, ManifestEntry] = field(default_factory=dict)
    """Entries by key."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the last run."""
    num_done: int = 0
    """Inputs with a result."""


class StoredEntries(Mapping[str, ManifestEntry]):
    """The entries of a manifest by key, read from the database when they are asked for: there may be millions.

    No more than `_MOST_HELD` are read at once, at the first look-up. Raises `StopRun` when the database cannot be read.
    """

    def __init__(self, connection: sqlite3.Connection, root: Path) -> None:
        self._connection = connection
        self._guarded = _StopOnError(root)

    @cached_property
    def _held(self) -> dict[str, ManifestEntry] | None:
        """All entries, or None where there are too many."""
        if len(self) > _MOST_HELD:
            return None
        with self._guarded:
            rows = self._connection.execute(f"SELECT {_COLUMNS} FROM image")
            return {row[0]: _entry(row) for row in rows}

    def __getitem__(self, key: str) -> ManifestEntry:
        """Return one entry; a key that is not text has none."""
        if self._held is not None:
            return self._held[key]
        try:
            with self._guarded:
                row = self._connection.execute(f"SELECT {_COLUMNS} FROM image WHERE key = ?", (key,)).fetchone()
        except UnicodeEncodeError:
            row = None
        if row is None:
            raise KeyError(key)
        return _entry(row)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys, in their order."""
        with self._guarded:
            for (key,) in self._connection.execute("SELECT key FROM image ORDER BY key"):
                yield key

    def __len__(self) -> int:
        with self._guarded:
            (number,) = self._connection.execute("SELECT count(*) FROM image").fetchone()
        return int(number)

    def __bool__(self) -> bool:
        """Return whether there is any entry; counting them takes longer."""
        with self._guarded:
            return self._connection.execute("SELECT 1 FROM image LIMIT 1").fetchone() is not None


class Manifest:
    """The manifest of one output folder, locked against other runs while it is open.

    One thread writes, another may read. Entries are committed about twice a second and at the end; after a crash the
    images of the last half second are translated again, with the same result.
    """

    def __init__(self, dst: Path) -> None:
        self.root = dst
        """The folder that has the manifest's folder in it."""
        self._folder = dst / FOLDER
        self._pending: list[ManifestEntry] = []
        self._committed_s = time.monotonic()
        self.run = 0
        """Number of the current run, from 1."""
        self._unused = False
        """Whether this object has created the database and recorded nothing since."""

    def __enter__(self) -> Self:
        """Create or open the database; raise `SetupError` when that fails or another run holds the lock."""
        self._unused = not (self._folder / "manifest.sqlite").exists()
        with ExitStack() as opened:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
                lock = open_within(self.root, self._folder / "lock", os.O_RDWR | os.O_CREAT, make=True)
                opened.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._require_no_links()
            except BlockingIOError:
                raise SetupError(
                    f'Another run is writing to "{self.root}"; wait for it or choose another folder.'
                ) from None
            except OSError as error:
                raise SetupError(f'Cannot write to "{self.root}": {error.strerror}.') from error
            try:
                self._writer = opened.enter_context(closing(self._connect()))
                self._reader = opened.enter_context(closing(self._connect()))
            except sqlite3.Error as error:
                raise SetupError(
                    f'The manifest "{self._folder / "manifest.sqlite"}" cannot be used ({error}); '
                    "move it away to start from the beginning."
                ) from error
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit, close and unlock; an error here never hides the one that ended the `with` block.

        When the run could not start (`SetupError`), a manifest that was created for it is deleted.
        """
        try:
            self.commit()
        except StopRun:
            if error is None:
                raise
        finally:
            self._opened.close()
            if self._unused and isinstance(error, SetupError):
                self._delete()

    def _delete(self) -> None:
        """Delete the manifest, and the output folder if nothing else is in it."""
        for path in self._folder.iterdir():
            path.unlink()
        self._folder.rmdir()
        with suppress(OSError):
            self.root.rmdir()

    def earlier_runs(self) -> EarlierRuns:
        """Return the entries and the settings of the last run; raise `StopRun` when the database cannot be read.

        The entries are read when they are asked for, so use them before the first one is recorded.
        """
        with self._guarded():
            return _earlier_runs(self._reader, StoredEntries(self._reader, self.root))

    def start_run(self, settings: str, recipe: str, started_s: float | None = None) -> None:
        """Record that a run with these settings (JSON) starts; `started_s` is in seconds since 1970."""
        with self._guarded():
            self._writer.execute(
                "INSERT INTO run (started_s, settings, recipe) VALUES (?, ?, ?)",
                (started_s or time.time(), settings, recipe),
            )
            self._writer.commit()
            (self.run,) = self._writer.execute("SELECT max(id) FROM run").fetchone()

    def find(self, key: str) -> ManifestEntry | None:
        """Return the last committed entry of `key`; raise `StopRun` when the database cannot be read."""
        with self._guarded():
            row = self._reader.execute(f"SELECT {_COLUMNS} FROM image WHERE key = ?", (key,)).fetchone()
        return None if row is None else _entry(row)

    def record(self, entry: ManifestEntry) -> None:
        """Keep `entry`, durable from the next commit on; raise `StopRun` when the disk does not take it."""
        self._unused = False
        self._pending.append(entry)
        if time.monotonic() - self._committed_s >= _COMMIT_EVERY_S:
            self.commit()

    def commit(self) -> None:
        """Make all recorded entries durable; raise `StopRun` when the disk does not take them."""
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

    def snapshot(self, path: Path) -> None:
        """Write the whole database as of the last commit to `path`, as one consistent file; from any thread."""
        path.unlink(missing_ok=True)
        with closing(self._connect()) as reader, closing(sqlite3.connect(path)) as copy:
            reader.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # a file that needs no other beside it

    def remarks(self, *, all_runs: bool = False) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield (key, notes) of each input that this run translated with a remark, or that any run did."""
        for key, notes in self._reader.execute(
            "SELECT key, notes FROM image WHERE state = 'done' AND notes != '' AND run >= ? ORDER BY key",
            (0 if all_runs else self.run,),
        ):
            yield key, tuple(notes.split("\n"))

    def failures(self, *, all_runs: bool = False) -> Iterator[tuple[str, str, str]]:
        """Yield (key, stage, error) of each input that failed in this run, or whose last attempt failed in any run."""
        yield from self._reader.execute(
            "SELECT key, stage, error FROM image WHERE state = 'failed' AND run >= ? ORDER BY key",
            (0 if all_runs else self.run,),
        )

    def outputs(self) -> Iterator[tuple[str, str]]:
        """Yield (key, output) of each input with a result."""
        yield from self._reader.execute("SELECT key, output FROM image WHERE state = 'done' ORDER BY key")

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


def read_earlier_runs(root: Path) -> EarlierRuns:
    """Return what the manifest below `root` holds, without creating, changing or locking anything.

    Raises `SetupError` when the manifest cannot be read.
    """
    path = root / FOLDER / "manifest.sqlite"
    if not path.exists():
        return EarlierRuns()
    try:
        # `immutable` keeps SQLite from creating files; it is right only while no other process writes.
        mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as connection:
            rows = connection.execute(f"SELECT {_COLUMNS} FROM image")
            return _earlier_runs(connection, {row[0]: _entry(row) for row in rows})
    except sqlite3.Error as error:
        raise SetupError(f'The manifest "{path}" cannot be read: {error}.') from error


def _earlier_runs(connection: sqlite3.Connection, entries: Mapping[str, ManifestEntry]) -> EarlierRuns:
    (created_s,) = connection.execute("SELECT min(started_s) FROM run").fetchone()
    if created_s is None:
        return EarlierRuns()
    (settings,) = connection.execute("SELECT settings FROM run ORDER BY id DESC LIMIT 1").fetchone()
    (num_done,) = connection.execute("SELECT count(*) FROM image WHERE state = 'done'").fetchone()
    return EarlierRuns(created_s=created_s, entries=entries, settings=json.loads(settings or "{}"), num_done=num_done)


def _entry(row: tuple[Any, ...]) -> ManifestEntry:
    key, identity, recipe, output, num_bytes, stage, error, notes = row
    return ManifestEntry(
        key=key,
        identity=identity,
        recipe=recipe,
        output=output,
        num_bytes=num_bytes,
        stage=stage,
        error=error,
        notes=tuple(notes.split("\n")) if notes else (),
    )


class _StopOnError:
    """Turns an SQLite error into `StopRun`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error):
            raise StopRun(f'The manifest in "{self._root}" cannot be used any more: {error}.') from error
