"""Photos before and after as thumbnails, gathered while a run goes on."""

from __future__ import annotations

import hashlib
import heapq
import io
import json
import math
import os
import struct
import tempfile
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PAGE_BYTES = 64_000_000
"""What the thumbnails of one page should take together, as long as they stay larger than `SMALLEST_SIDE`."""


SMALLEST_SIDE, LARGEST_SIDE = 256, 1200


BYTES_PER_PIXEL = 0.16
"""Of a thumbnail at `THUMBNAIL_QUALITY`, measured over landscape photos."""


THUMBNAIL_QUALITY = 82


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A photo before and after, as small JPEGs."""

    name: str
    """Path within the archive."""
    before: bytes
    after: bytes
    width: int
    """Of the translated photo, in pixels."""
    height: int


class Gallery(Collection[Comparison]):
    """Comparisons gathered while a run goes on, from any thread: a sample of `keep` photos, or every one.

    The sample is the photos whose names hash lowest, so that it spreads over the archive, and the same archive
    gives the same sample whatever the order in which photos finish. Thumbnails wait in an unnamed temporary
    file, not in memory.
    """

    def __init__(self, keep: int | None, total: int | None = None) -> None:
        self.keep = keep
        count = total if keep is None or (total is not None and total < keep) else keep
        self.side = thumbnail_side(count or 1000)
        """Long side of the thumbnails in pixels."""
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._kept: list[tuple[int, str, int]] = []
        self._lock = threading.Lock()

    def wants(self, name: str) -> bool:
        """Tell whether a photo of this name would be kept, before its thumbnails are made."""
        with self._lock:
            return self.keep is None or len(self._kept) < self.keep or -rank(name) > self._kept[0][0]

    def show(self, key: str, before_HWC: NDArray[np.uint8], after_HWC: NDArray[np.uint8]) -> None:
        """Make thumbnails of a photo and its translation, uint8 [H, W, 3] each, and keep them."""
        self.add(comparison(key, before_HWC, after_HWC, self.side))

    def add(self, comparison: Comparison) -> None:
        """Keep a comparison, and drop the one with the highest hash when there are too many."""
        head = json.dumps([comparison.name, comparison.width, comparison.height]).encode()
        blob = b"".join(struct.pack(">I", len(part)) + part for part in (head, comparison.before, comparison.after))
        with self._lock:
            offset = self._file.seek(0, os.SEEK_END)
            self._file.write(blob)
            heapq.heappush(self._kept, (-rank(comparison.name), comparison.name, offset))
            if self.keep is not None and len(self._kept) > self.keep:
                heapq.heappop(self._kept)

    def close(self) -> None:
        """Give the temporary file's space back."""
        self._file.close()

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Comparison]:
        for _, name, offset in sorted(self._kept, key=lambda kept: kept[1]):
            with self._lock:
                self._file.seek(offset)
                head, before, after = (self._file.read(self._read_size()) for _ in range(3))
            _, width, height = json.loads(head)
            yield Comparison(name=name, before=before, after=after, width=width, height=height)

    def __contains__(self, item: object) -> bool:
        return any(kept == item for kept in self)

    def _read_size(self) -> int:
        return int(struct.unpack(">I", self._file.read(4))[0])


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
