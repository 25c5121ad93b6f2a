"""What tars, zips and object stores have in common: members with names, of which the last of one name counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from engine.errors import SkipImage
from engine.listing.inputs import (
    SIDECAR_SUFFIXES,
    Input,
    Inventory,
    UnreadableInput,
    image_suffix,
    kind_of,
    needs_head,
    safe_key,
    suffix_of,
)
from engine.listing.selection import OUTPUT_KIND, STATE_FOLDER, Selection

OLDER_COPIES = "older copies"
"""Kind under which members are counted that a later one of the same name replaces."""


@dataclass(slots=True)
class MemberCollector:
    """Collects the members of one archive."""

    selection: Selection
    _members: dict[str, Input | None] = field(default_factory=dict)
    """By key; None for a member that is left out under `_kinds`."""
    _kinds: dict[str, str] = field(default_factory=dict)
    _older: int = 0
    _outputs: set[str] = field(default_factory=set)
    """Folders that hold a `STATE_FOLDER`."""

    def folder(self, name: str) -> None:
        """Take note of a folder."""
        self._note_output(name.rstrip("/") + "/")

    def wants_head(self, name: str) -> bool:
        """Return whether `add` needs the start of the content to tell what the member is."""
        return needs_head(name)

    def leave_out(self, name: str, kind: str) -> None:
        """Count a member that is not a file."""
        self._put(name.strip("/"), None, kind)

    def add(self, name: str, head: bytes | None, make: Callable[[str, str], Input]) -> None:
        """Add a file; `make` returns the input for a key and a suffix (see `Input`)."""
        self._note_output(name)
        suffix = image_suffix(name, head)
        sidecar = suffix_of(name) in SIDECAR_SUFFIXES
        try:
            key = safe_key(name)
        except SkipImage as error:
            if suffix is not None:
                self._put(name, UnreadableInput(key=name, identity="", reason=str(error)), "")
            return
        if left_out := self.selection.whole_path_kind(key):
            kind, path = left_out
            self._put(path, None, kind)
        elif suffix is None and not sidecar:
            self._put(key, None, kind_of(name, head))
        else:
            self._put(key, make(key, suffix or ""), "sidecar" if sidecar else "")

    def inventory(self) -> Inventory:
        """Return the inputs in the order in which they were added."""
        inventory = Inventory()
        for folder in self._outputs:
            inventory.leave_out(OUTPUT_KIND)
            self._drop_below(folder)
        for key, member in self._members.items():
            kind = self._kinds.get(key, "")
            if member is None:
                inventory.leave_out(kind)
            elif kind == "sidecar":
                inventory.sidecars.append(member)
            else:
                inventory.inputs.append(member)
        if self._older:
            inventory.left_out[OLDER_COPIES] = self._older
        return inventory

    def _put(self, key: str, member: Input | None, kind: str) -> None:
        before = self._members.pop(key, None)
        if before is not None and self._kinds.get(key, "") == "":
            self._older += 1
        self._members[key] = member
        self._kinds[key] = kind

    def _note_output(self, name: str) -> None:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if STATE_FOLDER in parts:
            folder = "/".join(parts[: parts.index(STATE_FOLDER)])
            if folder:
                self._outputs.add(folder)

    def _drop_below(self, folder: str) -> None:
        for key in [key for key in self._members if key.startswith(f"{folder}/")]:
            del self._members[key]
