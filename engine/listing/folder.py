"""The inputs of a folder and of a list of paths."""

from __future__ import annotations

import os
import stat
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path, PurePosixPath

from engine.codec.kinds import HEAD_BYTES
from engine.listing.inputs import (
    SIDECAR_SUFFIXES,
    FileInput,
    Input,
    Inventory,
    UnreadableInput,
    file_id,
    image_suffix,
    kind_of,
    needs_head,
    suffix_of,
)
from engine.listing.selection import OUTPUT_KIND, STATE_FOLDER, Selection


def list_folder(root: Path, selection: Selection, skip: Path | None) -> Inventory:
    """List a folder with all its sub-folders, links followed, in a fixed order; each folder once, so that loops end.

    `skip` is a folder that is passed over without being counted, such as the output folder.
    """
    walk = _Walk(selection, file_id(skip.stat()) if skip is not None and skip.exists() else None)
    walk.folder(str(root), "")
    return walk.inventory


class _Walk:
    def __init__(self, selection: Selection, skipped: tuple[int, int] | None) -> None:
        self.inventory = Inventory()
        self._selection = selection
        self._skipped = skipped
        self._seen: set[tuple[int, int]] = set()

    def folder(self, folder: str, prefix: str) -> None:
        """Add everything in one folder; raise `OSError` when it cannot be read."""
        identity = file_id(os.stat(folder))  # noqa: PTH116
        if identity == self._skipped:
            return
        if identity in self._seen:
            self.inventory.leave_out("folders seen before/")
            return
        self._seen.add(identity)
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        if prefix and any(entry.name == STATE_FOLDER and _is_folder(entry) for entry in found):
            self.inventory.leave_out(OUTPUT_KIND)
            return
        for entry in found:
            self._entry(entry, prefix + entry.name)

    def _entry(self, entry: os.DirEntry[str], key: str) -> None:
        folder = _is_folder(entry)
        if entry.name == STATE_FOLDER:
            return  # of the archive itself, when it is an output that is translated once more
        if kind := self._selection.kind_left_out(key, folder=folder):
            self.inventory.leave_out(kind)
        elif folder:
            try:
                self.folder(entry.path, key + "/")
            except OSError as error:
                reason = f"folder cannot be read: {error.strerror}"
                self.inventory.inputs.append(UnreadableInput(key=key, identity="", reason=reason))
        else:
            self._file(entry, key)

    def _file(self, entry: os.DirEntry[str], key: str) -> None:
        head = _head(entry) if needs_head(key) else None
        suffix = image_suffix(key, head)
        if suffix is not None:
            self.inventory.inputs.append(_listed_file(entry.path, key, suffix))
        elif suffix_of(key) in SIDECAR_SUFFIXES:
            self.inventory.sidecars.append(_listed_file(entry.path, key))
        else:
            self.inventory.leave_out(kind_of(key, head))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _head(entry: os.DirEntry[str]) -> bytes | None:
    """Return the start of a regular file; None for anything else, such as a pipe, which would block."""
    try:
        if not entry.is_file():
            return None
        descriptor = os.open(entry.path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return os.read(descriptor, HEAD_BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        return None


def _listed_file(path: str, key: str, suffix: str = "") -> Input:
    try:
        return input_of_file(path, key, os.stat(path), suffix)  # noqa: PTH116
    except (OSError, ValueError) as error:  # a link to nowhere, a name with a zero byte, gone since it was listed
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        return UnreadableInput(key=key, identity="", reason=reason, location=path)


def input_of_file(path: str, key: str, info: os.stat_result, suffix: str = "") -> Input:
    """Return the input for a path whose `stat` is `info`."""
    if not stat.S_ISREG(info.st_mode):
        return UnreadableInput(key=key, identity="", reason="not a regular file", location=path)
    return FileInput(
        key=key,
        identity=f"{info.st_size}-{info.st_mtime_ns}",
        num_bytes=info.st_size,
        modified_ns=info.st_mtime_ns,
        suffix=suffix,
        location=path,
    )


def list_paths(src: Path, selection: Selection) -> Inventory:
    """List the paths in a text file, one a line or separated by zero bytes; relative ones to the current folder.

    The file is in the file system's encoding, in UTF-8 or UTF-16 with a byte-order mark. A path that leads upwards
    (`../photos/a.jpg`) keeps what follows (`photos/a.jpg`) as its key, or its absolute path where another file of the
    list has that key. A path that is named twice is listed once. Every file is taken, whatever its suffix.
    """
    inventory = Inventory()
    paths: dict[str, str] = {}
    for name in _names(src.read_bytes()):
        key = _key_of_path(name)
        if paths.get(key, name) != name and _same_file(paths[key], name):
            continue
        if key in paths and paths[key] != name:
            key = os.path.abspath(name).lstrip("/")  # noqa: PTH100 (links stay as they are)
        if key in paths:
            continue
        paths[key] = name
        kind = selection.whole_path_kind(key) if selection.include or selection.exclude else None
        if kind is not None:
            inventory.leave_out(kind[0])
        else:
            inventory.inputs.append(_named_file(name, key))
    return inventory


def _names(data: bytes) -> list[str]:
    for mark, encoding in ((BOM_UTF16_LE, "utf-16"), (BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            return [line for line in data.decode(encoding, "replace").splitlines() if line]
    data = data.removeprefix(BOM_UTF8)
    lines = data.split(b"\0") if b"\0" in data else data.split(b"\n")
    return [os.fsdecode(line.rstrip(b"\r\n")) for line in lines if line.strip()]


def _key_of_path(name: str) -> str:
    parts = [part for part in PurePosixPath(os.path.normpath(name)).parts if part not in ("/", "//", "..")]
    return "/".join(parts)


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)  # noqa: PTH121
    except (OSError, ValueError):
        return os.path.abspath(one) == os.path.abspath(other)  # noqa: PTH100


def _named_file(name: str, key: str) -> Input:
    item = _listed_file(name, key)
    if isinstance(item, FileInput) and needs_head(key):
        with open(name, "rb") as file:  # noqa: PTH123
            suffix = image_suffix(key, file.read(HEAD_BYTES)) or ""
        return _listed_file(name, key, suffix)
    return item
