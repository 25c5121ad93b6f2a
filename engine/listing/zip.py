"""The inputs of a zip."""

from __future__ import annotations

import lzma
import stat
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.codec.kinds import HEAD_BYTES
from engine.errors import SetupError, SkipImage
from engine.listing.inputs import Input, Inventory
from engine.listing.members import MemberCollector
from engine.listing.selection import Selection

_BAD_DATA = (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


def list_zip(src: Path, selection: Selection) -> Inventory:
    """List the members of a zip; of members with one name the last counts. Raise `SetupError` when it is damaged."""
    found = MemberCollector(selection)
    shared = SharedZip(src)
    try:
        with zipfile.ZipFile(src) as archive:
            for member in archive.infolist():
                if member.is_dir():
                    found.folder(member.filename)
                elif stat.S_ISLNK(member.external_attr >> 16):
                    found.leave_out(member.filename, "links")
                else:
                    head = _head(archive, member) if found.wants_head(member.filename) else None
                    found.add(member.filename, head, _maker(shared, member))
    except (OSError, zipfile.BadZipFile) as error:
        raise SetupError(f'"{src}" cannot be read to its end: {error}') from error
    return found.inventory()


def _head(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | None:
    try:
        with archive.open(member) as file:
            return file.read(HEAD_BYTES)
    except _BAD_DATA:
        return None


def _maker(shared: SharedZip, member: zipfile.ZipInfo) -> Callable[[str, str], Input]:
    def make(key: str, suffix: str) -> Input:
        return ZipMember(
            key=key,
            identity=f"{member.file_size}-{member.CRC:08x}",
            num_bytes=member.file_size,
            modified_ns=_time_ns(member),
            suffix=suffix,
            archive=shared,
            header_offset=member.header_offset,
        )

    return make


def _time_ns(member: zipfile.ZipInfo) -> int | None:
    """Return a member's time of last change, which a zip keeps as local time."""
    try:
        return int(time.mktime((*member.date_time, 0, 0, -1))) * 1_000_000_000
    except (ValueError, OverflowError):
        return None


class SharedZip:
    """A zip that all its members read from; opened by the first read, pickled by its path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: zipfile.ZipFile | None = None
        self._members: dict[int, zipfile.ZipInfo] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[SharedZip], tuple[Path]]:
        return SharedZip, (self._path,)

    def read(self, header_offset: int) -> bytes:
        """Return the bytes of the member whose header is at `header_offset`."""
        with self._lock:
            if self._file is None:
                self._file = zipfile.ZipFile(self._path)
                self._members = {member.header_offset: member for member in self._file.infolist()}
        return self._file.read(self._members[header_offset])

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipMember(Input):
    """A member of a zip."""

    archive: SharedZip
    header_offset: int

    def read(self) -> bytes:
        """Return the member's bytes; raise `SkipImage` when it is damaged or encrypted."""
        try:
            return self.archive.read(self.header_offset)
        except _BAD_DATA as error:
            raise SkipImage(f"cannot be read from the zip: {error}") from error
