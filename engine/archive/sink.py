"""A sink into a folder that mirrors the archive."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from engine.errors import SkipImage, StopRun
from engine.ports import Found
from engine.records import Encoded, Failed, Outcome, Record, Stored
from engine.system.files import write_atomically

# What is wrong with the folder or the disk, not with one image.
_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


class ArchiveSink:
    """Writes each result below `root`, under a temporary name until it is whole and flushed."""

    def __init__(self, root: Path, partial_folder: Path | None = None, *, keep_times: bool = False) -> None:
        """`partial_folder` takes the unfinished files, on the same file system; whatever is left in it is deleted.

        With `keep_times` a result gets its input's time of last change.
        """
        self._keep_times = keep_times
        self._root = root
        self._partial_folder = partial_folder
        if partial_folder is not None:
            shutil.rmtree(partial_folder, ignore_errors=True)  # of runs that were killed

    def store(self, record: Record[Encoded]) -> Stored:
        """Write one result; safe from several threads.

        Raises `StopRun` when the folder is gone or full, `SkipImage` when only this name cannot be written.
        """
        output = record.origin.output
        encoded = record.payload
        modified_ns = record.origin.modified_ns if self._keep_times else None
        try:
            write_atomically(self._root / output, encoded.data, self._partial_folder, modified_ns, within=self._root)
        except OSError as error:
            raise self._meaning(error) from error
        return Stored.of(encoded, output)

    def _meaning(self, error: OSError) -> StopRun | SkipImage:
        if not self._root.is_dir():
            return StopRun(f"The output folder {self._root} is gone; run the same command again once it is back.")
        if error.errno in _FATAL:
            return StopRun(
                f"Cannot write to {self._root}: {error.strerror}; make room or permit it, then run the same "
                "command again to go on."
            )
        return SkipImage(f"cannot be written: {error.strerror}")

    def reject(self, failed: Failed) -> None:
        """Do nothing: the manifest keeps failures."""

    def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Do nothing: the manifest keeps outcomes."""
        return outcomes

    def find(self, output: str) -> Found | None:
        """Tell what is at `output` now."""
        try:
            info = (self._root / output).lstat()
        except OSError:
            return None
        return Found(num_bytes=info.st_size, changed_s=info.st_ctime, file_id=(info.st_dev, info.st_ino))
