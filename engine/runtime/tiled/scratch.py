"""Storage for activations between two passes: rows in memory or in a temporary file, read and written as bands."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

import torch
from torch import Tensor


class Scratch(Protocol):
    """A table [rows, values] of one dtype on the CPU, used as a context manager."""

    def read(self, first: int, last: int) -> Tensor:
        """Return rows `first` to `last` (exclusive) as a read-only [last - first, values]."""

    def write(self, first: int, rows: Tensor) -> None:
        """Store `rows` [n, values] from row `first` on."""

    def __enter__(self) -> Scratch: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class MemoryScratch:
    """Rows in memory; pages are allocated when they are first written."""

    def __init__(self, rows: int, values: int, dtype: torch.dtype) -> None:
        self._table = torch.empty((rows, values), dtype=dtype)

    def read(self, first: int, last: int) -> Tensor:
        """Return a view of the rows."""
        return self._table[first:last]

    def write(self, first: int, rows: Tensor) -> None:
        """Copy the rows into the table."""
        self._table[first : first + len(rows)] = rows

    def __enter__(self) -> MemoryScratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._table


class FileScratch:
    """Rows in an unnamed temporary file in `folder`, which disappears with the process.

    Uses read and write calls, because mapped pages would count as memory of this process. Raises `OSError` if the disk
    is full.
    """

    def __init__(self, rows: int, values: int, dtype: torch.dtype, folder: Path | None = None) -> None:
        self._values = values
        self._dtype = dtype
        self._row_bytes = values * dtype.itemsize
        self._file = tempfile.TemporaryFile(dir=folder, prefix="solstice-", buffering=0)  # noqa: SIM115
        # Allocated now, so that a full disk is reported before the work starts.
        os.posix_fallocate(self._file.fileno(), 0, rows * self._row_bytes)

    def read(self, first: int, last: int) -> Tensor:
        """Read the rows into new memory."""
        rows = torch.empty((last - first, self._values), dtype=self._dtype)
        view = memoryview(_bytes_of(rows))
        offset = first * self._row_bytes
        while view:
            count = os.preadv(self._file.fileno(), [view], offset)
            if count == 0:
                raise OSError("the temporary file of activations was truncated")
            view, offset = view[count:], offset + count
        return rows

    def write(self, first: int, rows: Tensor) -> None:
        """Write the rows to the file."""
        view = memoryview(_bytes_of(rows.contiguous()))
        offset = first * self._row_bytes
        while view:
            count = os.pwrite(self._file.fileno(), view, offset)
            view, offset = view[count:], offset + count

    def __enter__(self) -> FileScratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _bytes_of(rows: Tensor) -> memoryview:
    return rows.view(torch.uint8).reshape(-1).numpy().data


class QuarterView:
    """One table as activations [1, 4 ngf, H/4, W/4]."""

    def __init__(self, table: Scratch, height: int, width: int, rows: int, device: torch.device) -> None:
        self._table, self._height, self._width, self._rows, self._device = table, height, width, rows, device

    def bands(self) -> Iterator[Tensor]:
        """Yield bands from top to bottom; a band may be a view of the table and must not be modified."""
        for first in range(0, self._height, self._rows):
            yield _to_band(self._table.read(first, min(first + self._rows, self._height)), self._width, self._device)

    def write_and_pass(self, bands: Iterable[Tensor]) -> Iterator[Tensor]:
        """Write each band from top to bottom, then yield it."""
        first = 0
        for band in bands:
            rows = _to_rows(band)
            self._table.write(first, rows)
            first += len(rows)
            yield band

    def write_all(self, bands: Iterable[Tensor]) -> None:
        """Write bands from top to bottom."""
        deque(self.write_and_pass(bands), maxlen=0)


class HalfView:
    """Both tables as activations [1, 2 ngf, H/2, W/2]: even rows in the first, odd rows in the second."""

    def __init__(self, even: Scratch, odd: Scratch, pairs: int, width: int, rows: int, device: torch.device) -> None:
        self._even, self._odd, self._pairs, self._width, self._rows = even, odd, pairs, width, rows
        self._device = device

    def bands(self) -> Iterator[Tensor]:
        """Yield bands from top to bottom."""
        for first in range(0, self._pairs, self._rows):
            last = min(first + self._rows, self._pairs)
            rows = torch.stack((self._even.read(first, last), self._odd.read(first, last)), dim=1)
            yield _to_band(rows.flatten(0, 1), self._width, self._device)

    def write_all(self, bands: Iterable[Tensor]) -> None:
        """Write bands from top to bottom."""
        first, odd_row = 0, None
        for band in bands:
            rows = _to_rows(band)
            if odd_row is not None:
                rows = torch.cat((odd_row, rows))
            count = len(rows) // 2
            self._even.write(first, rows[0 : 2 * count : 2])
            self._odd.write(first, rows[1 : 2 * count : 2])
            odd_row = rows[2 * count :] if len(rows) % 2 else None
            first += count


def _to_band(rows: Tensor, width: int, device: torch.device) -> Tensor:
    """Reshape [rows, W * C] to [1, C, rows, W] on `device`, channels-last."""
    return rows.view(1, len(rows), width, -1).permute(0, 3, 1, 2).to(device)


def _to_rows(band: Tensor) -> Tensor:
    """Reshape [1, C, rows, W] to [rows, W * C] on the CPU."""
    return band.permute(0, 2, 3, 1)[0].flatten(1).cpu()
