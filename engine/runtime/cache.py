"""Compiled generators on disk, each under a key that names all it depends on.

An entry is a folder `<hash of the key>/` with `key.json` (the key, the package's SHA-256, and notes about it) and the
package itself. A package that no longer has its hash is built anew, as is one whose key differs in anything. Notes,
such as what the parity gate found, belong to the package they were made about and go with it.
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
    """`$SOLSTICE_CACHE`, else `solstice` in the user's cache folder."""
    named = os.environ.get("SOLSTICE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "solstice"


class ArtefactStore:
    """A folder of packages; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, key: Mapping[str, str]) -> Path | None:
        """Path of the package for `key`, or None when there is none that is whole."""
        folder = self._folder(key)
        try:
            entry = json.loads((folder / "key.json").read_text())
            package = folder / PACKAGE
            if entry["key"] == dict(key) and entry["sha256"] == _sha256(package):
                return package
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None

    def get_or_build(self, key: Mapping[str, str], build: Callable[[Path], None]) -> Path:
        """Path of the package for `key`; `build` writes it to the path it is given when there is none.

        Two processes that ask at once build it once: the second waits. Raises `SetupError` when the folder cannot be
        written, and whatever `build` raises.
        """
        found = self.get(key)
        if found is not None:
            return found
        folder = self._folder(key)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(
                f"Cannot write compiled generators to {self._root} ({error.strerror}); "
                "set SOLSTICE_CACHE to a folder that can be written."
            ) from error
        with _locked(folder / "lock"):
            return self.get(key) or self._build(key, folder, build)

    def notes(self, key: Mapping[str, str]) -> dict[str, Any]:
        """Give what `note` kept for `key`; empty when nothing was noted."""
        notes: dict[str, Any] = self._entry(self._folder(key)).get("notes", {})
        return notes

    def note(self, key: Mapping[str, str], **values: Any) -> None:
        """Keep JSON values by name for `key`, whether there is a package for it or nothing was compiled."""
        folder = self._folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock"):
            entry = self._entry(folder) or {"key": dict(key), "sha256": None, "notes": {}}
            entry["notes"] = {**entry.get("notes", {}), **values}
            _write_json(folder / "key.json", entry)

    def _build(self, key: Mapping[str, str], folder: Path, build: Callable[[Path], None]) -> Path:
        if (folder / "key.json").exists():
            log.warning("The compiled generator in %s is damaged and is built again.", folder)
        partial = folder / f"partial-{os.getpid()}.pt2"
        try:
            build(partial)
            digest = _sha256(partial)
            partial.replace(folder / PACKAGE)
        finally:
            partial.unlink(missing_ok=True)
        _write_json(folder / "key.json", {"key": dict(key), "sha256": digest, "notes": {}})
        return folder / PACKAGE

    def _entry(self, folder: Path) -> dict[str, Any]:
        """Read what is known of a package; empty when that is nothing, or damaged."""
        try:
            entry = json.loads((folder / "key.json").read_text())
        except (OSError, ValueError):
            return {}
        return entry if isinstance(entry, dict) else {}

    def _folder(self, key: Mapping[str, str]) -> Path:
        digest = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()
        return self._root / digest[:32]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on `path` that ends with the process, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True).encode())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
