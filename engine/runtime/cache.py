"""The package cache: compiled generators on disk, each under a key of everything it depends on.

A package lives in a folder `<hash of the key>/` with `key.json`: the key, the package's SHA-256, and notes about it. A
package whose hash or key does not match is built again. Notes, such as the result of the parity check, are about one
package and are dropped when it is rebuilt.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import SetupError
from engine.system.files import write_atomically

log = logging.getLogger(__name__)

PACKAGE = "package.pt2"


def default_cache() -> Path:
    """Return `$SOLSTICE_CACHE`, or else `solstice` in the user's cache folder."""
    named = os.environ.get("SOLSTICE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "solstice"


class PackageCache:
    """A folder of compiled packages; safe for concurrent processes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, key: Mapping[str, str]) -> Path | None:
        """Return the path of the package for `key`, or None if there is no intact one."""
        folder = self._folder(key)
        try:
            record = json.loads((folder / "key.json").read_text())
            package = folder / PACKAGE
            if record["key"] == dict(key) and record["sha256"] == _sha256(package):
                return package
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None

    def get_or_build(self, key: Mapping[str, str], build: Callable[[Path], None]) -> Path:
        """Return the path of the package for `key`; if there is none, call `build` with the path to write it to.

        Concurrent processes build a package once; the others wait. Raises `SetupError` if the folder cannot be written,
        and any error of `build`.
        """
        found = self.get(key)
        if found is not None:
            return found
        folder = self._folder(key)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(
                f"Cannot write compiled packages to {self._root} ({error.strerror}); "
                "set SOLSTICE_CACHE to a folder that can be written."
            ) from error
        with _locked(folder / "lock"):
            return self.get(key) or self._build(key, folder, build)

    def notes(self, key: Mapping[str, str]) -> dict[str, Any]:
        """Return the notes stored for `key`; empty if there are none."""
        notes: dict[str, Any] = self._read_record(self._folder(key)).get("notes", {})
        return notes

    def note(self, key: Mapping[str, str], **values: Any) -> None:
        """Store JSON values by name for `key`, whether or not there is a package for it."""
        folder = self._folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock"):
            record = self._read_record(folder) or {"key": dict(key), "sha256": None, "notes": {}}
            record["notes"] = {**record.get("notes", {}), **values}
            _write_json(folder / "key.json", record)

    def _build(self, key: Mapping[str, str], folder: Path, build: Callable[[Path], None]) -> Path:
        if (folder / "key.json").exists():
            log.warning("The compiled package in %s is damaged and is built again.", folder)
        partial = folder / f"partial-{os.getpid()}.pt2"
        try:
            build(partial)
            digest = _sha256(partial)
            partial.replace(folder / PACKAGE)
        finally:
            partial.unlink(missing_ok=True)
        _write_json(folder / "key.json", {"key": dict(key), "sha256": digest, "notes": {}})
        return folder / PACKAGE

    def _read_record(self, folder: Path) -> dict[str, Any]:
        """Read `key.json`; empty if it is missing or damaged."""
        try:
            record = json.loads((folder / "key.json").read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _folder(self, key: Mapping[str, str]) -> Path:
        digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
        return self._root / digest[:32]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock on `path`; the kernel releases it if the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True).encode())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
