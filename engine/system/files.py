"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# Processes in containers or on other machines share folders, and process numbers: 1 is everybody's.
_process = secrets.token_hex(4)
_count = itertools.count()


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
    """Give a file with a temporary name; at the end of the `with` block flush it to disk and rename it to `path`.

    The temporary name is in `partial_folder`, which must be on the same file system, or else beside `path`, hidden.
    `modified_ns` becomes its time of last change, in nanoseconds since 1970. Missing folders are made, those below
    `within` alone where that is given: a disk that was unplugged must not become a folder on another one. Without
    `durable` the disk is not waited for, and a machine that fails may leave an empty file. Raises `OSError`; then, and
    when the block raises, no temporary file is left, and what was at `path` still is.
    """
    name = f".solstice-{_process}-{os.getpid()}-{next(_count)}"
    temporary = os.path.join(partial_folder or path.parent, name)  # noqa: PTH118 (pathlib shows at 1,000 a second)
    descriptor = _create(temporary, within)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor has no path)
            yield file
            file.flush()
            if modified_ns is not None:
                os.utime(descriptor, ns=(modified_ns, modified_ns))
            if durable:
                os.fsync(descriptor)
        _rename(temporary, path, within)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # renamed already, or the whole folder is gone
            os.unlink(temporary)  # noqa: PTH108
        raise


def _create(name: str, within: Path | None) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(name, flags, 0o644)
    except FileNotFoundError:
        _make_folder(Path(name).parent, within)
        return os.open(name, flags, 0o644)


def _rename(name: str, path: Path, within: Path | None) -> None:
    try:
        os.replace(name, path)  # noqa: PTH105
    except FileNotFoundError:
        _make_folder(path.parent, within)
        os.replace(name, path)  # noqa: PTH105


def _make_folder(folder: Path, within: Path | None) -> None:
    if within is None:
        folder.mkdir(parents=True, exist_ok=True)
        return
    made = within
    for part in folder.relative_to(within).parts:
        made /= part
        made.mkdir(exist_ok=True)
