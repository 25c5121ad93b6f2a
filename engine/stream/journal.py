"""What has been handed over already: a file that remembers across interruptions which inputs were sent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.errors import SetupError

_HASH_BYTES = 16


class Journal:
    """A set of names on disk, 16 bytes each; what is added is there after a crash.

    The end of the file is cut to whole entries when it is opened, in case a crash left half of one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[bytes] = set()

    def __enter__(self) -> Self:
        """Read it, or begin it; raises `SetupError` when that cannot be done."""
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
        """Close."""
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return _hash(name) in self._known

    def __len__(self) -> int:
        return len(self._known)

    def add(self, names: Iterable[str]) -> None:
        """Remember `names`; durable on return."""
        hashes = [_hash(name) for name in names]
        self._file.write(b"".join(hashes))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._known.update(hashes)

    def clear(self) -> None:
        """Forget everything."""
        self._file.truncate(0)
        self._known.clear()


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:_HASH_BYTES]
