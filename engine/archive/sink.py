"""A sink into a folder that mirrors the archive."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from engine.errors import SkipImage, StopRun
from engine.ports import Found
from engine.records import Encoded, Failed, Outcome, Record, Stored
from engine.system.files import OpenFolders, UnfinishedFile

_FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}
"""Errors of the folder or the disk, not of one image."""


class ArchiveSink:
    """Writes results below `root`: with a temporary name by `store`, flushed in groups and renamed by `settle`."""

    def __init__(self, root: Path, partial_folder: Path | None = None, *, keep_times: bool = False) -> None:
        """Write unfinished files into `partial_folder`, on the same file system; None is `root`.

        With `keep_times` a result gets its input's time of last change.
        """
        self._keep_times = keep_times
        self._root = root
        self._partial_folder = "" if partial_folder is None else partial_folder.relative_to(root).as_posix()
        self._folders = OpenFolders(root)
        self._unfinished: dict[str, UnfinishedFile] = {}
        self._lock = threading.Lock()

    def store(self, record: Record[Encoded]) -> Stored:
        """Write one result with a temporary name; `settle` gives it its own. Safe from several threads.

        Raises `StopRun` when the folder is gone or full, `SkipImage` when only this result cannot be written.
        """
        output = record.origin.output
        encoded = record.payload
        modified_ns = record.origin.modified_ns if self._keep_times else None
        try:
            file = UnfinishedFile(output, encoded.data, self._partial_folder, self._folders, modified_ns)
        except OSError as error:
            raise self._error_of(error, self._root / self._partial_folder) from error
        with self._lock:
            replaced = self._unfinished.pop(output, None)
            self._unfinished[output] = file
        if replaced is not None:
            replaced.discard()
        return Stored.of(encoded, output)

    def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Make the stored results among `outcomes` durable, all together, and give them their names.

        Returns the outcomes in their order, with a `Failed` in the place of a result whose name cannot be written.
        Raises `StopRun` when the folder is gone or full.
        """
        with self._lock:
            files = [
                None if isinstance(outcome, Failed) else self._unfinished.pop(outcome.payload.location, None)
                for outcome in outcomes
            ]
        for file in files:
            if file is not None:
                file.start_flush()
        settled: list[Outcome] = []
        with OpenFolders(self._root) as targets:
            for number, (outcome, file) in enumerate(zip(outcomes, files, strict=True)):
                if file is None or isinstance(outcome, Failed):
                    settled.append(outcome)
                    continue
                try:
                    file.finish(targets)
                    settled.append(outcome)
                except OSError as error:
                    reason = self._error_of(error, (self._root / outcome.payload.location).parent)
                    if isinstance(reason, StopRun):
                        _discard(files[number + 1 :])
                        raise reason from error
                    settled.append(outcome.failed("store", reason))
        return settled

    def close(self) -> None:
        """Delete results that were stored and not settled."""
        with self._lock:
            _discard(self._unfinished.values())
            self._unfinished.clear()
            self._folders.close()

    def _error_of(self, error: OSError, folder: Path) -> StopRun | SkipImage:
        if not self._root.is_dir():
            return StopRun(f'The output folder "{self._root}" is gone; run the same command again once it is back.')
        if error.errno in _FATAL:
            place = folder if error.errno in (errno.EACCES, errno.EPERM) else self._root
            return StopRun(
                f'Cannot write to "{place}": {error.strerror}; free space or grant access, then run the same '
                "command again to continue."
            )
        return SkipImage(f"cannot be written: {error.strerror}")

    def reject(self, failed: Failed) -> None:
        """Do nothing: failures are in the manifest."""

    def find(self, output: str) -> Found | None:
        """Return what is at `output` now."""
        try:
            info = os.lstat(f"{self._root}/{output}")
        except OSError:
            return None
        return Found(num_bytes=info.st_size, changed_s=info.st_ctime, file_id=(info.st_dev, info.st_ino))


def _discard(files: Iterable[UnfinishedFile | None]) -> None:
    for file in files:
        if file is not None:
            file.discard()
