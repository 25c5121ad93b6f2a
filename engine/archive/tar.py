"""A tar as output: results packed in the order of their inputs, in shards of limited size."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from engine.archive.plan import ArchivePlan
from engine.errors import SetupError, StopRun
from engine.system.files import atomic_file

_BLOCK = 512
_END_BYTES = 10_240
"""A tar ends with zero blocks, filled up to a multiple of this."""


def require_free(tar: Path) -> None:
    """Raise `SetupError` when `tar` or a shard of it is already there."""
    for path in (tar, *shards_of(tar)):
        if path.exists():
            raise SetupError(f'"{path}" is there already; --overwrite writes it again from the beginning.')


def shards_of(tar: Path) -> list[Path]:
    """Return the shards of `tar` that are there: `photos-00000.tar`, `photos-00001.tar`, …"""
    return sorted(tar.parent.glob(f"{tar.stem}-[0-9][0-9][0-9][0-9][0-9]{tar.suffix}"))


def pack(folder: Path, tar: Path, plan: ArchivePlan, shard_bytes: int | None) -> list[Path]:
    """Write the results in `folder` into `tar` or into shards of at most `shard_bytes`, and delete `folder`.

    Returns the files written, in order. A shard appears under its name when it is whole; a member that is larger than a
    shard gets one of its own. Raises `StopRun` when the tar cannot be written; the results are kept then.
    """
    outputs = [output for output in plan.outputs if (folder / output).is_file()]
    outputs += sorted(_others(folder, set(outputs)))
    try:
        old = {tar, *shards_of(tar)}
        written: list[Path] = []
        for number, members in enumerate(_shards(folder, outputs, shard_bytes)):
            path = tar if shard_bytes is None else tar.with_name(f"{tar.stem}-{number:05}{tar.suffix}")
            with atomic_file(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for member in members:
                    archive.add(folder / member, member, filter=_anonymous)
            written.append(path)
        for path in old - set(written):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StopRun(
            f'Cannot write "{tar}": {error.strerror or error}; run the same command again to continue.'
        ) from error
    shutil.rmtree(folder)
    return written


def _others(folder: Path, packed: set[str]) -> Iterator[str]:
    """Yield files that are no results: copied sidecars and the report page."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(".solstice/") and name not in packed:
            yield name


def _shards(folder: Path, outputs: list[str], shard_bytes: int | None) -> Iterator[list[str]]:
    members: list[str] = []
    size = _END_BYTES
    for output in outputs:
        num_bytes = _tar_bytes((folder / output).stat().st_size, output)
        if members and shard_bytes is not None and size + num_bytes > shard_bytes:
            yield members
            members, size = [], _END_BYTES
        members.append(output)
        size += num_bytes
    if members:
        yield members


def _tar_bytes(size: int, name: str) -> int:
    """Return the bytes that a member takes; long or non-ASCII names and exact times have a header of their own."""
    extended = 2 * _BLOCK + -(-len(os.fsencode(name)) // _BLOCK) * _BLOCK
    return _BLOCK + extended + -(-size // _BLOCK) * _BLOCK


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove the user who ran the command, so that the same results give the same tar."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member
