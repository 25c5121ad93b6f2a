"""The package cache: compiled generators on disk, each under a key of everything it depends on.

A package is code that runs with the rights of whoever loads it. So the cache is private: its folders are created for
the owner alone, and a folder or file that belongs to another user, or that others may write, is refused. What vouches
for a package is not beside it:

    packages/<hash of the key>/package.pt2    what is loaded, alone in its folder
    hashes/<hash of the key>.json             its key, its SHA-256, and notes about it

A package whose hash or key does not match is built again. Notes, such as the result of the parity check, are about one
package and are dropped when it is rebuilt.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
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


def make_private(folder: Path) -> None:
    """Create `folder`, with its parents, for the owner alone; one that exists keeps its mode. Raises `OSError`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def require_private(path: Path) -> None:
    """Raise `SetupError` when `path` exists and another user owns it or may write it.

    The superuser may own it: an administrator can provide packages that users only read.
    """
    try:
        infos = [path.stat(), path.lstat()]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise SetupError(f"The package cache {path} cannot be read: {error.strerror}.") from error
    if any(info.st_uid not in (os.geteuid(), 0) for info in infos):
        why = "belongs to another user"
    elif infos[0].st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        why = "may be written by other users"
    else:
        return
    raise SetupError(
        f"The package cache {path} {why}, whose code would run here; delete it, or set SOLSTICE_CACHE to a folder of "
        "your own, such as a new one inside it."
    )


class PackageCache:
    """A folder of compiled packages; safe for concurrent processes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._packages = root / "packages"
        self._hashes = root / "hashes"

    def get(self, key: Mapping[str, str]) -> Path | None:
        """Return the path of the package for `key`, or None if there is no intact one.

        Raises `SetupError` if another user owns the cache or may write to it.
        """
        package = self._packages / _name(key) / PACKAGE
        record = self._read_record(key)
        self._require_private(package.parent, package)
        try:
            if record["key"] == dict(key) and record["sha256"] == _sha256(package):
                return package
        except (OSError, KeyError):
            return None
        return None

    def get_or_build(self, key: Mapping[str, str], build: Callable[[Path], None]) -> Path:
        """Return the path of the package for `key`; if there is none, call `build` with the path to write it to.

        `build` has the folder of that path for itself: nobody else can read or write it, and it is deleted afterwards.
        Concurrent processes build a package once; the others wait. Raises `SetupError` if the folder cannot be written
        or is not private, and any error of `build`.
        """
        found = self.get(key)
        if found is not None:
            return found
        try:
            for folder in (self._root, self._packages, self._hashes):
                make_private(folder)
        except OSError as error:
            raise SetupError(
                f"Cannot write compiled packages to {self._root} ({error.strerror}); "
                "set SOLSTICE_CACHE to a folder that can be written."
            ) from error
        with self._locked(key):
            return self.get(key) or self._build(key, build)

    def matching(self, key: Mapping[str, str]) -> dict[str, str] | None:
        """Return the key of an intact package with at least all items of `key`, or None."""
        for path in sorted(self._hashes.glob("*.json")):
            try:
                found = json.loads(path.read_text())["key"]
                if key.items() <= found.items() and self.get(found) is not None:
                    return dict(found)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue
        return None

    def notes(self, key: Mapping[str, str]) -> dict[str, Any]:
        """Return the notes stored for `key`; empty if there are none."""
        notes: dict[str, Any] = self._read_record(key).get("notes", {})
        return notes

    def note(self, key: Mapping[str, str], **values: Any) -> None:
        """Store JSON values by name for `key`, whether or not there is a package for it."""
        for folder in (self._root, self._hashes):
            make_private(folder)
        with self._locked(key):
            record = self._read_record(key) or {"key": dict(key), "sha256": None, "notes": {}}
            record["notes"] = {**record.get("notes", {}), **values}
            self._write_record(key, record)

    def _build(self, key: Mapping[str, str], build: Callable[[Path], None]) -> Path:
        folder = self._packages / _name(key)
        if folder.exists() or self._record_of(key).exists():
            log.warning("The compiled package in %s is damaged and is built again.", folder)
        # Left behind by a process that was killed; this process holds the lock.
        for left_behind in self._packages.glob(f"building-{_name(key)}-*"):
            shutil.rmtree(left_behind, ignore_errors=True)
        private = Path(tempfile.mkdtemp(prefix=f"building-{_name(key)}-", dir=self._packages))
        try:
            built = private / PACKAGE
            build(built)
            digest = _sha256(built)
            make_private(folder)
            built.chmod(0o600)
            built.replace(folder / PACKAGE)
        finally:
            shutil.rmtree(private, ignore_errors=True)
        self._write_record(key, {"key": dict(key), "sha256": digest, "notes": {}})
        return folder / PACKAGE

    def _record_of(self, key: Mapping[str, str]) -> Path:
        return self._hashes / f"{_name(key)}.json"

    def _read_record(self, key: Mapping[str, str]) -> dict[str, Any]:
        """Read what is stored about a package; empty if it is missing or damaged."""
        path = self._record_of(key)
        self._require_private(self._hashes, path)
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def _write_record(self, key: Mapping[str, str], record: dict[str, Any]) -> None:
        data = json.dumps(record, indent=2, sort_keys=True).encode()
        write_atomically(self._record_of(key), data, within=self._hashes)

    def _require_private(self, *paths: Path) -> None:
        for path in (self._root, self._packages, *paths):
            require_private(path)

    @contextmanager
    def _locked(self, key: Mapping[str, str]) -> Iterator[None]:
        """Hold a file lock for `key`; the kernel releases it if the process dies."""
        path = self._hashes / f"{_name(key)}.lock"
        self._require_private(self._hashes)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _name(key: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
