"""Object stores and web servers as folders, through fsspec: `s3://`, `gs://`, `az://`, `http(s)://` and the rest."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from engine.errors import SetupError

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure"}
READ_ONLY = ("http", "https")


def is_url(place: str | Path) -> bool:
    """Whether `place` names something that is not on this machine's file system."""
    return "://" in str(place)


@dataclass(frozen=True)
class Storage:
    """A folder behind a URL. Keys are relative to it, with `/` between their parts."""

    url: str
    """As the user wrote it, without a slash at the end."""
    fs: Any
    """The fsspec file system."""
    root: str
    """The folder, as `fs` names it."""

    def read(self, key: str) -> bytes:
        """Give the bytes of `key`; raises `FileNotFoundError` or another `OSError`."""
        data: bytes = self.fs.cat_file(self.path(key))
        return data

    def write(self, key: str, data: bytes) -> None:
        """Put `data` at `key`: whole or not at all, as object stores do it; raises `OSError`."""
        self.fs.pipe_file(self.path(key), data)

    def delete(self, key: str) -> None:
        """Remove `key`, if it is there."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path(key))

    def find(self) -> dict[str, dict[str, Any]]:
        """Give what the store tells of every key, in the order of the keys; raises `SetupError` when it cannot."""
        self.fs.invalidate_cache()
        with _explained(self.url):
            found: dict[str, dict[str, Any]] = self.fs.find(self.root, detail=True)
        prefix = self.root.rstrip("/") + "/"
        return {
            name.removeprefix(prefix) if name.startswith(prefix) else name.rsplit("/", 1)[-1]: found[name]
            for name in sorted(found)
        }

    def path(self, key: str) -> str:
        """Name `key` as `fs` does."""
        return f"{self.root.rstrip('/')}/{key}"


def connect(url: str) -> Storage:
    """Open the folder at `url`, without asking the store yet.

    Raises `SetupError` when the protocol is unknown or its package is not installed.
    """
    protocol = url.split("://", 1)[0]
    try:
        fs, root = fsspec.core.url_to_fs(url.rstrip("/"))
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        advice = f"pip install 'solstice-engine[{extra}]'" if extra else str(error)
        raise SetupError(f"{protocol}:// needs a package that is not installed: {advice}.") from error
    except ValueError as error:
        raise SetupError(f"{url}: {error}.") from error
    return Storage(url.rstrip("/"), fs, root)


def require_writable(storage: Storage) -> None:
    """Raise `SetupError` when nothing can be written to `storage`."""
    if storage.url.startswith(READ_ONLY):
        raise SetupError(f"Results cannot be written to {storage.url}; name a folder or an object store.")
    with _explained(storage.url):
        storage.write(".solstice/probe", b"")
        storage.delete(".solstice/probe")


class _explained:  # noqa: N801 (reads as a word in a `with`)
    """Turns what a store raises into one sentence."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise SetupError(f"There is nothing at {self._url}.") from error
        if isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
            raise SetupError(f"Access to {self._url} was denied; check the credentials ({error}).") from error
        if isinstance(error, Exception) and not isinstance(error, SetupError):
            raise SetupError(f"{self._url} cannot be used: {error}.") from error
