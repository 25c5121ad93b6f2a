"""What there is to translate behind a URL."""

from __future__ import annotations

from functools import partial
from typing import Any

from engine.errors import SkipImage
from engine.naming import is_image_name
from engine.sources.listing import Input, Listing
from engine.storage import Storage

# What stores tell of a version of an object, best first; a size alone would miss changes.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime")


def list_objects(storage: Storage) -> Listing:
    """List the images below `storage`, in the order of their keys; hidden ones are left out.

    For `http(s)://` this follows the links of index pages. Raises `SetupError` when the store cannot be listed.
    """
    for key, info in storage.find().items():
        if is_image_name(key) and not any(part.startswith(".") for part in key.split("/")):
            yield Input(key, _identity(info), partial(_read, storage, key))


def _identity(info: dict[str, Any]) -> str:
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    return f"{info.get('size')}-{version}"


def _read(storage: Storage, key: str) -> bytes:
    try:
        return storage.read(key)
    except FileNotFoundError:
        raise SkipImage("is gone since the archive was listed") from None
