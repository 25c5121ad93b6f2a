"""What there is to translate in a folder, a file, a list of files, a tar or a zip; nothing is decoded here."""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from engine.codec.formats import is_image_name
from engine.errors import SetupError, SkipImage, StopRun
from engine.system.storage import Storage

LIST_SUFFIXES = (".txt", ".lst", ".list")

_BAD_STREAM = (zlib.error, lzma.LZMAError, EOFError)
_BAD_TAR = (OSError, tarfile.TarError, *_BAD_STREAM)

# What stores tell of a version of an object, best first; a size alone would miss changes.
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated", "mtime")


@dataclass(frozen=True, slots=True)
class Input:
    """One file that may be an image."""

    key: str
    """Path relative to the source, with `/` between its parts."""
    identity: str
    """Changes when the file does: its size in bytes and time of last change."""
    read: Callable[[], bytes] = field(repr=False)
    """Gives the file's bytes; raises `OSError`, or `SkipImage` with a reason."""
    path: Path | None = None
    """Where it is, for files that are on disk by themselves."""
    modified_ns: int | None = None
    """When it was last changed, in nanoseconds since 1970; None where that is not known."""

    def file_id(self) -> tuple[int, int] | None:
        """Device and inode of the file, links followed; None where it is no file on disk by itself."""
        try:
            return None if self.path is None else _file_id(self.path.stat())
        except OSError:
            return None


Listing = Iterator[Input]


def list_inputs(src: Path, skip: Path | None = None) -> Listing:
    """List the images of `src`, which may be any of the kinds above, in a fixed order.

    A folder is searched through all its sub-folders, links included (each folder once, so that loops end); hidden
    files, files without an image's suffix and the folder `skip` are left out. Raises `SetupError` when `src` is
    missing or unreadable as what it seems to be.
    """
    try:
        if src.is_dir():
            os.scandir(src).close()
            return _in_folder(src, skip)
        return _in_file(src, src.stat())
    except FileNotFoundError:
        raise SetupError(f"{src} does not exist.") from None
    except OSError as error:
        raise SetupError(f"{src} cannot be read: {error.strerror or error}.") from error


def count_inputs(src: Path, skip: Path | None = None) -> int | None:
    """Count what `list_inputs` would give, or None where that would mean reading everything (tar)."""
    inputs = list_inputs(src, skip)
    if src.is_file() and not is_image_name(src.name) and tarfile.is_tarfile(src):
        return None
    return sum(1 for _ in inputs)


def _in_file(src: Path, info: os.stat_result) -> Listing:
    if not stat.S_ISREG(info.st_mode):
        raise SetupError(f"{src} is neither a folder nor a file.")
    if is_image_name(src.name):  # before the others, for a photo may well have a zip behind its end
        return iter([_file(src, src.name, info)])
    if tarfile.is_tarfile(src):
        return _in_tar(src)
    if zipfile.is_zipfile(src):
        return _in_zip(src)
    if src.suffix.lower() in LIST_SUFFIXES:
        return _in_list(src)
    return iter([_file(src, src.name, info)])


def _in_folder(root: Path, skip: Path | None) -> Listing:
    skipped = _file_id(skip.stat()) if skip is not None and skip.exists() else None
    seen: set[tuple[int, int]] = set()

    def walk(folder: str, prefix: str) -> Listing:
        identity = _file_id(Path(folder).stat())
        if identity in seen or identity == skipped:
            return
        seen.add(identity)
        with os.scandir(folder) as entries:
            visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        for entry in visible:
            key = prefix + entry.name
            if _is_folder(entry):
                yield from _walk_on(walk, entry.path, key)
            elif is_image_name(entry.name):
                yield _entry(entry, key)

    return walk(str(root), "")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _walk_on(walk: Callable[[str, str], Listing], folder: str, key: str) -> Listing:
    try:
        yield from walk(folder, key + "/")
    except OSError as error:
        yield Input(key, "", partial(_raise, SkipImage(f"folder cannot be read: {error.strerror}")))


def _entry(entry: os.DirEntry[str], key: str) -> Input:
    try:
        return _file(Path(entry.path), key, entry.stat())
    except OSError as error:  # a link to nowhere, or gone since the folder was read
        return Input(key, "", partial(_raise, SkipImage(f"cannot be read: {error.strerror}")))


def _file(path: Path, key: str, info: os.stat_result) -> Input:
    if not stat.S_ISREG(info.st_mode):
        return Input(key, "", partial(_raise, SkipImage("not a regular file")), path)
    return Input(key, f"{info.st_size}-{info.st_mtime_ns}", path.read_bytes, path, info.st_mtime_ns)


def _in_list(src: Path) -> Listing:
    """One path a line, relative ones to the current folder; the tree under the output folder mirrors them."""
    with src.open("rb") as lines:
        for line in lines:
            name = os.fsdecode(line.rstrip(b"\r\n"))
            if name:
                yield _listed(Path(name))


def _listed(path: Path) -> Input:
    try:
        key = _safe_key(path.as_posix())
        return _file(path, key, path.stat())
    except SkipImage as error:
        return Input(path.as_posix(), "", partial(_raise, error), path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Input(key, "", partial(_raise, SkipImage(f"cannot be read: {reason}")), path)


def _in_zip(src: Path) -> Listing:
    try:
        with zipfile.ZipFile(src) as archive:
            for member in archive.infolist():
                if not member.is_dir() and _wanted(member.filename):
                    identity = f"{member.file_size}-{member.CRC:08x}"
                    yield _member(member.filename, identity, partial(_read_zip, archive, member), _zip_time_ns(member))
    except (OSError, zipfile.BadZipFile) as error:
        raise StopRun(f"{src} cannot be read to its end: {error}") from error


def _read_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(member)
    except (OSError, RuntimeError, zipfile.BadZipFile, *_BAD_STREAM) as error:
        raise SkipImage(f"cannot be read from the zip: {error}") from error


def _in_tar(src: Path) -> Listing:
    """Members in their order; each must be read before the next is asked for, which the source does."""
    try:
        with tarfile.open(src) as archive:
            for member in archive:
                if member.isfile() and _wanted(member.name):
                    identity = f"{member.size}-{member.mtime}"
                    modified_ns = round(member.mtime * 1e9)
                    yield _member(member.name, identity, partial(_read_tar, archive, member), modified_ns)
    except _BAD_TAR as error:  # what came before has its results all the same
        yield Input(src.name, "", partial(_raise, SkipImage(f"archive cannot be read to its end: {error}")))


def _read_tar(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "only regular members are listed"
    try:
        return file.read()
    except _BAD_TAR as error:
        raise SkipImage(f"cannot be read from the tar: {error}") from error


def _wanted(name: str) -> bool:
    hidden = any(part.startswith(".") and part not in (".", "..") for part in PurePosixPath(name).parts)
    return not hidden and is_image_name(name)


def _zip_time_ns(member: zipfile.ZipInfo) -> int | None:
    """Read a zip's date as local time, which is how zips mean it."""
    try:
        return int(time.mktime((*member.date_time, 0, 0, -1))) * 1_000_000_000
    except (ValueError, OverflowError):
        return None


def _member(name: str, identity: str, read: Callable[[], bytes], modified_ns: int | None) -> Input:
    try:
        return Input(_safe_key(name), identity, read, modified_ns=modified_ns)
    except SkipImage as error:
        return Input(name, identity, partial(_raise, error))


def _safe_key(name: str) -> str:
    """Make a listed name relative; raises `SkipImage` for one that would leave the output folder."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "//", ".")]
    if ".." in parts or not parts:
        raise SkipImage("name leads out of the archive")
    return "/".join(parts)


def _file_id(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def _raise(error: Exception) -> bytes:
    raise error


def printable(key: str) -> str:
    r"""Show a file name that is not UTF-8 with `\xNN` for its strange bytes."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


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
