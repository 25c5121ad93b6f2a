"""Photos before and after translation as thumbnails."""

from __future__ import annotations

import hashlib
import heapq
import io
import math
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PAGE_BYTES = 64_000_000
"""Size of all thumbnails of a page together, as long as they stay larger than `SMALLEST_SIDE`."""

SMALLEST_SIDE, LARGEST_SIDE = 256, 1200
"""Pixels of a thumbnail's long side."""


BYTES_PER_PIXEL = 0.16
"""Of a thumbnail at `THUMBNAIL_QUALITY`; mean over landscape photos."""


THUMBNAIL_QUALITY = 82


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A photo before and after translation, as small JPEGs."""

    name: str
    """Path within the archive."""
    before: bytes
    after: bytes
    width: int
    """Pixels of the translated photo."""
    height: int


class Gallery(Collection[Comparison]):
    """Comparisons of an archive's photos: a sample of `keep`, or every one. Filled from any thread.

    The sample is the photos whose names hash lowest, so that it spreads over the archive, and the same archive gives
    the same sample whatever the order in which photos finish. Thumbnails are in an SQLite file, not in memory; with a
    `path` they stay there for later runs.
    """

    def __init__(self, keep: int | None, total: int | None = None, path: Path | None = None) -> None:
        """Open the comparisons at `path`; a file that cannot be read is replaced."""
        self.keep = keep
        count = total if keep is None or (total is not None and total < keep) else keep
        self.side = thumbnail_side(count or 1000)
        """Long side of the thumbnails in pixels."""
        self._lock = threading.Lock()
        self._database = _open_database(path)
        names = [name for (name,) in self._database.execute("SELECT name FROM comparison")]
        self._kept = [(-rank(name), name) for name in names]
        heapq.heapify(self._kept)
        self._names = set(names)
        self._drop_above_limit()

    def wants(self, key: str) -> bool:
        """Return whether a photo of this name would be kept, before its thumbnails are made."""
        with self._lock:
            full = self.keep is not None and len(self._kept) >= self.keep
            return key in self._names or not full or -rank(key) > self._kept[0][0]

    def show(self, key: str, before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8]) -> None:
        """Make thumbnails of a photo and its translation, uint8 [H, W, 3] each, and keep them."""
        self.add(comparison(key, before_HWC, after_HWC, self.side))

    def add(self, comparison: Comparison) -> None:
        """Keep a comparison in the place of an earlier one, and drop the highest hash when there are too many."""
        values = (comparison.name, comparison.before, comparison.after, comparison.width, comparison.height)
        with self._lock:
            self._database.execute("INSERT OR REPLACE INTO comparison VALUES (?, ?, ?, ?, ?)", values)
            if comparison.name not in self._names:
                self._names.add(comparison.name)
                heapq.heappush(self._kept, (-rank(comparison.name), comparison.name))
                self._drop_above_limit()

    def restrict_to(self, names: Collection[str]) -> None:
        """Drop the comparisons of all other photos."""
        with self._lock:
            gone = self._names - set(names)
            self._delete(gone)
            self._kept = [item for item in self._kept if item[1] not in gone]
            heapq.heapify(self._kept)

    def close(self) -> None:
        """Commit and close the file."""
        with self._lock:
            self._database.commit()
            self._database.close()

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Comparison]:
        for name in sorted(name for _, name in self._kept):
            with self._lock:
                row = self._database.execute(
                    "SELECT before, after, width, height FROM comparison WHERE name = ?", (name,)
                ).fetchone()
            before, after, width, height = row
            yield Comparison(name=name, before=before, after=after, width=width, height=height)

    def __contains__(self, item: object) -> bool:
        return any(kept == item for kept in self)

    def has(self, key: str) -> bool:
        """Return whether there is a comparison of this photo."""
        return key in self._names

    def _drop_above_limit(self) -> None:
        gone = []
        while self.keep is not None and len(self._kept) > self.keep:
            gone.append(heapq.heappop(self._kept)[1])
        self._delete(gone)

    def _delete(self, names: Iterable[str]) -> None:
        names = list(names)
        self._names.difference_update(names)
        self._database.executemany("DELETE FROM comparison WHERE name = ?", [(name,) for name in names])


_SCHEMA = """CREATE TABLE IF NOT EXISTS comparison (
    name TEXT PRIMARY KEY, before BLOB NOT NULL, after BLOB NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL
)"""


def _open_database(path: Path | None) -> sqlite3.Connection:
    """Open a file that may be lost in a crash, since it can be made again; without a path a temporary one."""
    for attempt in (1, 2):
        # An empty name is a temporary file on disk, deleted when it is closed.
        connection = sqlite3.connect("" if path is None else path, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(_SCHEMA)
            connection.execute("SELECT name, before, after, width, height FROM comparison LIMIT 1")
        except sqlite3.DatabaseError:
            connection.close()
            if path is None or attempt == 2:
                raise
            path.unlink(missing_ok=True)
        else:
            return connection
    raise AssertionError("unreachable")


def rank(name: str) -> int:
    """Return a number that spreads names evenly and is the same on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def thumbnail_side(count: int) -> int:
    """Return the long side in pixels at which `count` pairs of thumbnails come near `PAGE_BYTES`."""
    side = math.sqrt(PAGE_BYTES / (2 * count * 0.7 * BYTES_PER_PIXEL))
    return int(min(max(side, SMALLEST_SIDE), LARGEST_SIDE))


def comparison(name: str, before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8], side: int) -> Comparison:
    """Make a comparison from sRGB pixels, uint8 [H, W, 3] each; `side` is that of the thumbnails."""
    height, width = after_HWC.shape[:2]
    return Comparison(
        name=name,
        before=thumbnail(before_HWC, side),
        after=thumbnail(after_HWC, side),
        width=width,
        height=height,
    )


def thumbnail(pixels_HWC: NDArray[np.uint8], side: int) -> bytes:
    """Return a JPEG of at most `side` pixels on its long side."""
    image = Image.fromarray(pixels_HWC)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=THUMBNAIL_QUALITY)
    return file.getvalue()
