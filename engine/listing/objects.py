"""The inputs of an object store or a web server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.errors import SkipImage
from engine.listing.inputs import Input, Inventory
from engine.listing.members import MemberCollector
from engine.listing.selection import Selection
from engine.system.storage import Storage, clause

PARALLEL_READS = 16
"""Requests under way at once: enough to hide a round trip of 50 ms behind 300 images/s."""

_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime")
"""Fields in which stores name the version of an object, best first; a size alone would miss changes."""


def list_objects(storage: Storage, selection: Selection | None = None) -> Inventory:
    """List what is below `storage`, in the order of the keys; for `http(s)://` this follows the links of index pages.

    Images are recognised by their suffixes alone, because reading the first bytes would be a request each. Raises
    `SetupError` when the store cannot be listed.
    """
    found = MemberCollector(selection or Selection())
    for key, info in storage.find():
        found.add(key, None, _maker(storage, key, info))
    inventory = found.inventory()
    inventory.read_ahead = PARALLEL_READS
    return inventory


def _maker(storage: Storage, name: str, info: dict[str, Any]) -> Callable[[str, str], Input]:
    def make(key: str, suffix: str) -> Input:
        version = next((str(info[field]) for field in _VERSIONS if info.get(field)), "")
        size = info.get("size")
        return StoredObject(
            key=key,
            identity=f"{size}-{version}",
            num_bytes=None if size is None else int(size),
            suffix=suffix,
            storage=storage,
            name_in_store=key if key == name else name,  # one string instead of two equal ones
        )

    return make


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject(Input):
    """An object in a store."""

    storage: Storage
    name_in_store: str

    def read(self) -> bytes:
        """Return the object's bytes; raise `SkipImage` when the store does not give them."""
        try:
            return self.storage.read(self.name_in_store)
        except FileNotFoundError:
            raise SkipImage("is gone since the archive was listed") from None
        except Exception as error:  # each store raises its own classes
            raise SkipImage(f"cannot be read from the store: {clause(error)}") from error
