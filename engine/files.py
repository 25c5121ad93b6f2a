"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

_count = itertools.count()


def write_atomically(
    path: Path,
    data: bytes,
    partial_folder: Path | None = None,
    modified_ns: int | None = None,
    *,
    within: Path | None = None,
) -> None:
    """Write `data` under a temporary name, flush it to disk, then rename it to `path`.

    The temporary name is in `partial_folder`, which must be on the same file system, or else beside `path`, hidden.
    `modified_ns` becomes its time of last change, in nanoseconds since 1970. Missing folders are made, those below
    `within` alone where that is given: a disk that was unplugged must not become a folder on another one.
    Raises `OSError`; then no temporary file is left, and what was at `path` still is.
    """
    name = f".solstice-{os.getpid()}-{next(_count)}"
    temporary = os.path.join(partial_folder or path.parent, name)  # noqa: PTH118 (pathlib shows at 1,000 a second)
    descriptor = _create(temporary, within)
    try:
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123 (a descriptor has no path)
            _write_all(file.fileno(), data)
            if modified_ns is not None:
                os.utime(descriptor, ns=(modified_ns, modified_ns))
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


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
