"""The inputs of a tar, plain or compressed with gzip, bzip2, xz or zstd."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
import tarfile
import threading
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.codec.kinds import HEAD_BYTES
from engine.errors import SetupError, SkipImage
from engine.listing.inputs import Input, Inventory, UnreadableInput
from engine.listing.members import MemberCollector
from engine.listing.selection import Selection

try:
    import zstandard
except ImportError:  # optional here: only tars compressed so need it
    zstandard = None  # type: ignore[assignment]


def _open_zstd(path: Path) -> Any:
    """Open a stream compressed with zstd for reading; raises `SetupError` if nothing here reads it."""
    if zstandard is None:
        raise SetupError(f'"{path}" is compressed with zstd: pip install zstandard, or decompress it first.')
    return zstandard.open(path)


_OPENERS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zstd,
}
"""Functions that open a compressed stream for reading, by the stream's first bytes."""

_BAD_DATA = (
    *(OSError, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError),
    *(() if zstandard is None else (zstandard.ZstdError,)),
)


def opener_of(src: Path) -> Callable[..., Any] | None:
    """Return the function that opens `src` as a compressed stream; None when it is not compressed."""
    with src.open("rb") as file:
        head = file.read(8)
    return next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)


def is_tar(src: Path) -> bool:
    """Return whether `src` begins like a tar, compressed or not."""
    opener = opener_of(src)
    try:
        if opener is None:
            return tarfile.is_tarfile(src)
        with closing(opener(src)) as stream, tarfile.open(fileobj=stream, mode="r|"):
            return True
    except _BAD_DATA:
        return False


def list_tar(src: Path, selection: Selection) -> Inventory:
    """List the members of a tar, in the order in which their bytes are stored.

    Of members with one name the newest (last) counts, and a hard link is a file with the bytes of the member that it
    names. A tar that is cut or damaged gives what comes before the damage, and one input that fails with the reason.
    """
    opener = opener_of(src)
    found = MemberCollector(selection)
    data: dict[str, _Location] = {}
    torn: Input | None = None
    stream = opener(src) if opener else src.open("rb")
    archive_stream = None if opener is None else TarStream(src)
    try:
        with closing(stream), tarfile.open(fileobj=stream, mode="r|" if opener else "r:") as archive:
            for member in archive:
                if member.isdir():
                    found.folder(member.name)
                    continue
                location = data.get(_plain(member.linkname)) if member.islnk() else _location(member)
                if location is None:
                    found.leave_out(member.name, "links" if member.issym() or member.islnk() else "special files")
                    continue
                data[_plain(member.name)] = location
                head = _head(archive, member) if found.wants_head(member.name) else None
                found.add(member.name, head, _maker(src, member, location, archive_stream))
    except _BAD_DATA as error:
        torn = UnreadableInput(key=src.name, identity="", reason=f"archive cannot be read to its end: {error}")
    inventory = found.inventory()
    if opener is not None:
        inventory.read_ahead = 1
    inventory.inputs.sort(key=lambda item: item.offset if isinstance(item, TarMember) else sys.maxsize)
    if torn is not None:
        inventory.inputs.append(torn)
    return inventory


@dataclass(frozen=True, slots=True)
class _Location:
    """Where the bytes of a member are, in the uncompressed tar."""

    offset: int
    num_bytes: int
    sparse: tuple[tuple[int, int], ...] = ()
    """Position in the file and length of each stored part, for a sparse member."""


def _location(member: tarfile.TarInfo) -> _Location | None:
    if not member.isreg():
        return None
    sparse = getattr(member, "sparse", None) or ()
    return _Location(member.offset_data, member.size, tuple((offset, size) for offset, size in sparse))


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _head(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | None:
    if not member.isreg():
        return None
    file = archive.extractfile(member)
    return None if file is None else file.read(HEAD_BYTES)


def _maker(
    src: Path, member: tarfile.TarInfo, location: _Location, stream: TarStream | None
) -> Callable[[str, str], Input]:
    def make(key: str, suffix: str) -> Input:
        return TarMember(
            key=key,
            identity=f"{location.num_bytes}-{member.mtime}",
            num_bytes=location.num_bytes,
            modified_ns=round(member.mtime * 1e9),
            suffix=suffix,
            tar=str(src),
            offset=location.offset,
            sparse=location.sparse,
            stream=stream,
        )

    return make


@dataclass(frozen=True, slots=True, kw_only=True)
class TarMember(Input):
    """A member of a tar."""

    tar: str
    """Path of the tar."""
    offset: int
    """Position of the member's bytes in the uncompressed tar."""
    sparse: tuple[tuple[int, int], ...] = ()
    stream: TarStream | None = None
    """Reader of a compressed tar, which all its members share."""

    def read(self) -> bytes:
        """Return the member's bytes; raise `SkipImage` when the tar is damaged there."""
        assert self.num_bytes is not None
        stored = sum(size for _, size in self.sparse) if self.sparse else self.num_bytes
        try:
            data = self._stored(stored)
        except _BAD_DATA as error:
            raise SkipImage(f"cannot be read from the tar: {error}") from error
        if len(data) != stored:
            raise SkipImage("cannot be read from the tar: unexpected end of data")
        return self._filled(data) if self.sparse else data

    def _stored(self, num_bytes: int) -> bytes:
        if self.stream is not None:
            return self.stream.read_at(self.offset, num_bytes)
        with open(self.tar, "rb") as file:  # noqa: PTH123
            file.seek(self.offset)
            return file.read(num_bytes)

    def _filled(self, stored: bytes) -> bytes:
        assert self.num_bytes is not None
        whole, start = bytearray(self.num_bytes), 0
        for offset, size in self.sparse:
            whole[offset : offset + size] = stored[start : start + size]
            start += size
        return bytes(whole)


class TarStream:
    """Reads a compressed tar forwards; a step back opens it anew. Safe from several threads; pickled by its path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._position = 0
        self._last: tuple[int, int, bytes] = (-1, -1, b"")
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[TarStream], tuple[Path]]:
        return TarStream, (self._path,)

    def read_at(self, offset: int, num_bytes: int) -> bytes:
        """Return up to `num_bytes` bytes from `offset` of the uncompressed tar."""
        with self._lock:
            if (offset, num_bytes) == self._last[:2]:  # a hard link beside its target
                return self._last[2]
            if self._file is None or offset < self._position:
                self.close()
                opener = opener_of(self._path)
                assert opener is not None, f"{self._path} is not compressed any more"
                self._file, self._position = opener(self._path), 0
            while self._position < offset:
                skipped = len(self._file.read(min(1 << 20, offset - self._position)))
                if not skipped:
                    return b""
                self._position += skipped
            data = _read_all(self._file, num_bytes)
            self._position += len(data)
            self._last = (offset, num_bytes, data)
            return data

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def __del__(self) -> None:
        self.close()


def _read_all(file: IO[bytes], num_bytes: int) -> bytes:
    parts: list[bytes] = []
    while num_bytes > 0 and (part := file.read(num_bytes)):
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)
