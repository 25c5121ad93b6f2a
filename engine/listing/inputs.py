"""An input, and the inventory of an archive: what there is to translate, and what is left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from engine.codec.formats import IMAGE_SUFFIXES
from engine.codec.kinds import RAW_SUFFIXES, suffix_of_content
from engine.errors import SkipImage

SIDECAR_SUFFIXES = (".xmp", ".json")
"""Suffixes of files that describe a photo beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One file that may be an image. Subclasses read it; all are small and can be pickled."""

    key: str
    """Path relative to the source, with `/` between its parts; unique in an inventory."""
    identity: str
    """Changes when the file does: its size in bytes, and its time of last change or checksum."""
    num_bytes: int | None = None
    """Size by the file's header or directory entry; None where it is not known before reading."""
    modified_ns: int | None = None
    """Time of last change, in nanoseconds since 1970; None where it is not known."""
    suffix: str = ""
    """Suffix of the format that the content shows, where the name has none of an image; else empty."""

    @property
    def path(self) -> Path | None:
        """Path of the file; None for a member of an archive and for an object in a store."""
        return None

    @property
    def page(self) -> int:
        """Page of the file, from 0; above 0 only with `--pages all`."""
        return 0

    @property
    def file_key(self) -> str:
        """The key without a page number."""
        return self.key

    def read(self) -> bytes:
        """Return the file's bytes; raise `OSError`, or `SkipImage` with a reason."""
        raise NotImplementedError

    def file_id(self) -> tuple[int, int] | None:
        """Return device and inode of the file, links followed; None where it is not a file of its own."""
        try:
            return None if self.path is None else file_id(os.stat(self.path))  # noqa: PTH116 (a hot path)
        except OSError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInput(Input):
    """A file on disk."""

    location: str
    """Path of the file."""

    @property
    def path(self) -> Path:
        """Path of the file."""
        return Path(self.location)

    def read(self) -> bytes:
        """Return the file's bytes; raise `OSError`."""
        with open(self.location, "rb", buffering=0) as file:  # noqa: PTH123 (a hot path)
            return file.readall()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableInput(Input):
    """An input that is listed only to be reported as failed."""

    reason: str
    location: str | None = None

    @property
    def path(self) -> Path | None:
        """Path of what cannot be read, if it is on disk."""
        return None if self.location is None else Path(self.location)

    def read(self) -> bytes:
        """Raise `SkipImage`."""
        raise SkipImage(self.reason)


@dataclass(slots=True)
class Inventory:
    """The inputs of one archive in a fixed order, and a count of everything that is left out."""

    inputs: list[Input] = field(default_factory=list)
    sidecars: list[Input] = field(default_factory=list)
    """Files with a suffix of `SIDECAR_SUFFIXES`."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of files and folders that are left out, by kind: a suffix, `no suffix`, `hidden`, `@eaDir/`, …"""
    read_ahead: int = 4
    """Inputs to read at the same time, because one thread reads fewer a second than a GPU translates; 1 where they must
    be read in order."""

    def __iter__(self) -> Iterator[Input]:
        return iter(self.inputs)

    def __len__(self) -> int:
        return len(self.inputs)

    def leave_out(self, kind: str) -> None:
        """Count one file or folder that is left out."""
        self.left_out[kind] += 1


def image_suffix(name: str, head: bytes | None) -> str | None:
    """Return what `Input.suffix` must be for an image of this name and content; None when it is not taken.

    `head` is the start of the content (see `engine.codec.kinds`), None where it is not known.
    """
    own = suffix_of(name)
    if own in IMAGE_SUFFIXES:
        return ""
    content = suffix_of_content(head) if head is not None else None
    if own in RAW_SUFFIXES and content == ".tif":
        return None  # a raw file that is a TIFF by structure, and would show its small preview
    return content if content in IMAGE_SUFFIXES else None


def needs_head(name: str) -> bool:
    """Return whether the content must be looked at to tell what a file of this name is."""
    suffix = suffix_of(name)
    return suffix not in IMAGE_SUFFIXES and suffix not in SIDECAR_SUFFIXES


def kind_of(name: str, head: bytes | None = None) -> str:
    """Return the kind under which a file that is left out is counted: its suffix, or what its content shows."""
    return suffix_of(name) or (suffix_of_content(head) if head else None) or "no suffix"


def suffix_of(name: str) -> str:
    """Return the suffix of a path in lower case, with its dot."""
    name = name[name.rfind("/") + 1 :]  # ten times as fast as pathlib, and called several times for each file
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""


def safe_key(name: str) -> str:
    """Return the name of an archive's member as a relative path.

    Raises `SkipImage` for a name that leads out of the output folder.
    """
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "//", ".")]
    if ".." in parts or not parts:
        raise SkipImage("name leads out of the archive")
    return "/".join(parts)


def file_id(info: os.stat_result) -> tuple[int, int]:
    """Return device and inode."""
    return info.st_dev, info.st_ino


def printable(key: str) -> str:
    r"""Return a file name as text that can be printed, with `\xNN` for bytes that are not UTF-8."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
