"""Write files that are whole or absent, without following links below a root folder."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

# A shared folder can hold temporary files of other containers and machines, whose process numbers may be equal.
_process = secrets.token_hex(4)
_count = itertools.count()

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LinkNotFollowed(OSError):
    """A symbolic link stands where a folder or a file below a root was expected."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.ELOOP, f"{name} is a symbolic link, and links in this folder are not followed")


def write_atomically(
    path: Path,
    data: bytes,
    partial_folder: Path | None = None,
    modified_ns: int | None = None,
    *,
    within: Path | None = None,
    durable: bool = True,
) -> None:
    """Write `data` to `path` as `atomic_file` does."""
    with atomic_file(path, partial_folder, modified_ns, within=within, durable=durable) as file:
        file.write(data)


@contextmanager
def atomic_file(
    path: Path,
    partial_folder: Path | None = None,
    modified_ns: int | None = None,
    *,
    within: Path | None = None,
    durable: bool = True,
) -> Iterator[BinaryIO]:
    """Yield a file with a temporary name; when the `with` block ends, flush it to disk and rename it to `path`.

    The temporary file is in `partial_folder`, which must be on the same file system, or hidden beside `path`.
    `modified_ns` sets the time of last change, in nanoseconds since 1970. Missing folders are created. With `within`,
    only folders below it are created (the mount point of an unplugged disk must not be filled instead of the disk), and
    no symbolic link below it is followed, whoever puts it there and whenever. Without `durable` the call does not wait
    for the disk, and a machine that fails may leave an empty file.

    Raises `OSError`, of which `LinkNotFollowed` is one. Then, and when the block raises, no temporary file is left and
    `path` is unchanged.
    """
    name = f".solstice-{_process}-{os.getpid()}-{next(_count)}"
    with _folder_of(path if partial_folder is None else partial_folder / name, within) as partial:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=partial)
        try:
            with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor has no path)
                yield file
                file.flush()
                if modified_ns is not None:
                    os.utime(descriptor, ns=(modified_ns, modified_ns))
                if durable:
                    os.fsync(descriptor)
            if partial_folder is None:
                os.replace(name, path.name, src_dir_fd=partial, dst_dir_fd=partial)
            else:
                with _folder_of(path, within) as target:
                    os.replace(name, path.name, src_dir_fd=partial, dst_dir_fd=target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # already renamed, or the whole folder is gone
                os.unlink(name, dir_fd=partial)
            raise


class OpenFolders:
    """Folders at or below `root` that stay open, so that many files are written without opening the folders on the way.

    Folders are named relative to `root`, with slashes; an empty name is `root`. No symbolic link below it is followed
    when a folder is opened. Safe from several threads.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._descriptors: dict[str, int] = {}
        self._outdated: list[int] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def descriptor(self, folder: str, *, deleted: int | None = None) -> int:
        """Return a descriptor of `folder` for `dir_fd`, valid until `close`; create missing folders.

        `deleted` is a descriptor returned before whose folder is gone: another one is opened instead. Raises
        `LinkNotFollowed` for a link below the root, otherwise `OSError`.
        """
        with self._lock:
            descriptor = self._descriptors.get(folder)
            if descriptor is not None and descriptor != deleted:
                return descriptor
            with folder_within(self._root, self._root / folder, make=True) as opened:
                self._descriptors[folder] = os.dup(opened)
            if descriptor is not None:
                self._outdated.append(descriptor)  # other threads may be using it
            return self._descriptors[folder]

    def close(self) -> None:
        """Close all folders; `descriptor` opens them again."""
        with self._lock:
            for descriptor in (*self._descriptors.values(), *self._outdated):
                os.close(descriptor)
            self._descriptors.clear()
            self._outdated.clear()


class UnfinishedFile:
    """A whole file with a temporary name, which is not on disk for certain before `finish`.

    Several of them are made durable in less time than one after the other: write all, call `start_flush` of all, then
    `finish` of all.
    """

    def __init__(
        self, path: str, data: bytes, partial_folder: str, folders: OpenFolders, modified_ns: int | None = None
    ) -> None:
        """Write `data` to a temporary file in `partial_folder`, on the same file system as `path`.

        Both are relative to the root of `folders`, which must stay open until the file is finished or discarded.
        `modified_ns` is as in `atomic_file`. Raises `OSError`; then no file is left.
        """
        self._target, _, self._target_name = path.rpartition("/")
        self._name = f".solstice-{_process}-{os.getpid()}-{next(_count)}"
        self._folder = folders.descriptor(partial_folder)
        try:
            self._descriptor = self._create()
        except FileNotFoundError:  # the folder was deleted since it was opened
            self._folder = folders.descriptor(partial_folder, deleted=self._folder)
            self._descriptor = self._create()
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            if modified_ns is not None:
                os.utime(self._descriptor, ns=(modified_ns, modified_ns))
        except BaseException:
            self.discard()
            raise

    def start_flush(self) -> None:
        """Let the system begin to write the file to disk, without waiting."""
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def finish(self, folders: OpenFolders) -> None:
        """Wait until the file is on disk and rename it to its path, whose folder is opened in `folders`.

        `folders` have the same root as those that the file was made with. Raises `OSError`; then the file is gone and
        the old one unchanged.
        """
        try:
            os.fsync(self._descriptor)
            target = folders.descriptor(self._target)
            os.replace(self._name, self._target_name, src_dir_fd=self._folder, dst_dir_fd=target)
        except BaseException:
            self.discard()
            raise
        os.close(self._descriptor)

    def discard(self) -> None:
        """Delete the file."""
        os.close(self._descriptor)
        with contextlib.suppress(OSError):
            os.unlink(self._name, dir_fd=self._folder)

    def _create(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(self._name, flags, 0o644, dir_fd=self._folder)


@contextmanager
def folder_within(root: Path, folder: Path, *, make: bool = False) -> Iterator[int]:
    """Open `folder`, at or below `root`, as a descriptor for `dir_fd`; with `make`, create missing folders.

    `root` itself may be reached through links. Raises `LinkNotFollowed` for a link below it, otherwise `OSError`.
    """
    descriptor = os.open(root, _FOLDER & ~os.O_NOFOLLOW)
    try:
        for part in _parts(root, folder):
            inner = _open_inner(descriptor, part, make=make)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def open_within(root: Path, path: Path, flags: int, *, make: bool = False) -> int:
    """Open the regular file `path` below `root` and return its descriptor; with `make`, create missing folders.

    Raises `LinkNotFollowed` for a link on the way or at the end, otherwise `OSError`.
    """
    with folder_within(root, path.parent, make=make) as folder:
        try:
            descriptor = os.open(path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise LinkNotFollowed(path.name) from None
            raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{path.name} is not a regular file")
    return descriptor


def _parts(root: Path, folder: Path) -> list[str]:
    """Return the names that lead from `root` to `folder`; raises `ValueError` when it is not below."""
    start, whole = str(root), str(folder)  # pathlib's relative_to takes longer than writing a small file
    if whole == start:
        return []
    prefix = start.rstrip("/") + "/"
    if not whole.startswith(prefix) and start != ".":
        raise ValueError(f"{folder} is not below {root}")
    return whole.removeprefix(prefix).split("/")


def _open_inner(folder: int, name: str, *, make: bool) -> int:
    if name == "..":
        raise ValueError("a path below a root must not contain ..")
    try:
        return _open_folder(folder, name)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):  # another thread or process created it first
        os.mkdir(name, dir_fd=folder)
    return _open_folder(folder, name)


def _open_folder(folder: int, name: str) -> int:
    """Open a folder; raises `LinkNotFollowed` where a link has its name."""
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise LinkNotFollowed(name) from None
        raise


@contextmanager
def _folder_of(path: Path, within: Path | None) -> Iterator[int]:
    """Open the folder of `path`, creating it where that is allowed."""
    if within is None:
        within = path.parent
        with contextlib.suppress(FileExistsError):  # a folder, or else opening it fails with a clearer error
            within.mkdir(parents=True, exist_ok=True)
    with folder_within(within, path.parent, make=True) as descriptor:
        yield descriptor
