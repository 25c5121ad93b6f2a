"""Where results go: a folder, an object store, one file, or a tar."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.archive.config import ArchiveConfig
from engine.archive.manifest import FOLDER, EarlierRuns, Manifest, read_earlier_runs
from engine.archive.names import Fold, folding_of
from engine.archive.plan import ArchivePlan
from engine.archive.remote import RemoteSink, earlier_remote_runs, remote_manifest
from engine.archive.sink import ArchiveSink
from engine.archive.tar import pack, require_free
from engine.codec.formats import FORMATS, is_image_name
from engine.errors import SetupError
from engine.ports import ArchiveOutput
from engine.system.storage import connect, is_url

PAGE_NAME = "report.html"


class Destination(Protocol):
    """Where the results of a run go; can be pickled."""

    @property
    def fixed_output(self) -> str | None:
        """Name of the only result; None where results are named after their inputs."""
        ...

    @property
    def state_folder(self) -> Path | None:
        """Local folder beside the manifest that outlives the run; None where there is none."""
        ...

    @property
    def results(self) -> Path | None:
        """Local folder that the names of results are relative to, until `finish`; None for a store."""
        ...

    @property
    def page(self) -> str | None:
        """Path or URL of a report page; None where there is no place for one."""
        ...

    def manifest(self) -> AbstractContextManager[Manifest]:
        """Open the manifest, locked against other runs; raise `SetupError`."""
        ...

    def earlier_runs(self) -> EarlierRuns:
        """Return what the manifest holds, without creating, changing or locking anything; raise `SetupError`."""
        ...

    def sink(self, *, keep_times: bool = False, part: str = "") -> ArchiveOutput:
        """Open what stores results; each of several processes needs a `part` of its own for unfinished files."""
        ...

    def fold(self, *, writing: bool = True) -> Fold:
        """Return how names are compared there; create nothing without `writing`."""
        ...

    def finish(self, plan: ArchivePlan) -> str:
        """Complete the output after the last result, and return where the results are, as text.

        Raises `StopRun` when the output cannot be written.
        """
        ...


@dataclass(frozen=True)
class FolderDestination:
    """A folder that mirrors the archive."""

    root: Path
    fixed_output: str | None = None

    @property
    def state_folder(self) -> Path:
        """The manifest's folder."""
        return self.root / FOLDER

    @property
    def results(self) -> Path:
        """The folder itself."""
        return self.root

    @property
    def page(self) -> str:
        """A page in the folder."""
        return str(self.root / PAGE_NAME)

    @contextmanager
    def manifest(self) -> Iterator[Manifest]:
        """Open the manifest in the folder, which is created; delete unfinished files of killed runs and of this one."""
        with Manifest(self.root) as manifest:
            shutil.rmtree(self._unfinished, ignore_errors=True)
            try:
                yield manifest
            finally:
                shutil.rmtree(self._unfinished, ignore_errors=True)

    @property
    def _unfinished(self) -> Path:
        return self.root / FOLDER / "partial"

    def earlier_runs(self) -> EarlierRuns:
        """Return what the manifest holds."""
        return read_earlier_runs(self.root)

    def sink(self, *, keep_times: bool = False, part: str = "") -> ArchiveOutput:
        """Open a sink whose unfinished files are beside the manifest."""
        return ArchiveSink(self.root, self._unfinished / part, keep_times=keep_times)

    def fold(self, *, writing: bool = True) -> Fold:
        """Return how the folder's file system compares names."""
        return folding_of(self.root / FOLDER, writing=writing)

    def finish(self, plan: ArchivePlan) -> str:  # noqa: ARG002
        """Return the folder: every result already has its name."""
        return os.path.abspath(self.root)  # noqa: PTH100 (links stay as they are)


@dataclass(frozen=True)
class StoreDestination:
    """An object store."""

    url: str
    fixed_output: str | None = None
    state_folder: Path | None = None
    results: Path | None = None

    @property
    def page(self) -> str:
        """A page in the store."""
        return f"{connect(self.url).url}/{PAGE_NAME}"

    def manifest(self) -> AbstractContextManager[Manifest]:
        """Open a copy of the manifest in the store."""
        return remote_manifest(connect(self.url))

    def earlier_runs(self) -> EarlierRuns:
        """Return what the manifest in the store holds."""
        return earlier_remote_runs(connect(self.url))

    def sink(self, *, keep_times: bool = False, part: str = "") -> ArchiveOutput:  # noqa: ARG002
        """Open a sink; stores set times themselves."""
        return RemoteSink(connect(self.url))

    def fold(self, *, writing: bool = True) -> Fold:  # noqa: ARG002
        """Return the identity: stores compare names byte by byte."""
        return str

    def finish(self, plan: ArchivePlan) -> str:  # noqa: ARG002
        """Return the URL."""
        return connect(self.url).url


@dataclass(frozen=True)
class FileDestination:
    """One file, for one photo; its manifest is temporary."""

    file: Path
    state_folder: Path | None = None
    page: str | None = None

    @property
    def results(self) -> Path:
        """Folder of the file."""
        return self.file.parent

    @property
    def fixed_output(self) -> str:
        """Name of the file."""
        return self.file.name

    @contextmanager
    def manifest(self) -> Iterator[Manifest]:
        """Open a temporary manifest, and create the file's folder."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(f'Cannot write to "{self.file.parent}": {error.strerror}.') from error
        with tempfile.TemporaryDirectory() as folder, Manifest(Path(folder)) as manifest:
            yield manifest

    def earlier_runs(self) -> EarlierRuns:
        """Return nothing: no manifest is kept."""
        return EarlierRuns()

    def sink(self, *, keep_times: bool = False, part: str = "") -> ArchiveOutput:  # noqa: ARG002
        """Open a sink into the file's folder, where the unfinished file is hidden."""
        return ArchiveSink(self.file.parent, keep_times=keep_times)

    def fold(self, *, writing: bool = True) -> Fold:  # noqa: ARG002
        """Return the identity: there is one name."""
        return str

    def finish(self, plan: ArchivePlan) -> str:  # noqa: ARG002
        """Return the file."""
        return os.path.abspath(self.file)  # noqa: PTH100


@dataclass(frozen=True)
class TarDestination:
    """A tar, or several with a size limit, written from a hidden folder that a stopped run continues from."""

    tar: Path
    shard_bytes: int | None = None
    overwrite: bool = False
    fixed_output: str | None = None
    state_folder: Path | None = None

    @property
    def results(self) -> Path:
        """The hidden folder."""
        return self._folder.root

    @property
    def page(self) -> str:
        """A page beside the tar, without links into it."""
        return str(self.tar.with_suffix(f".{PAGE_NAME}"))

    @property
    def _folder(self) -> FolderDestination:
        return FolderDestination(self.tar.with_name(f".{self.tar.name}.unfinished"))

    def manifest(self) -> AbstractContextManager[Manifest]:
        """Open the manifest in the hidden folder; raise `SetupError` when the tar is already there."""
        if not self.overwrite:
            require_free(self.tar)
        return self._folder.manifest()

    def earlier_runs(self) -> EarlierRuns:
        """Return what a stopped run has left in the hidden folder."""
        if not self.overwrite:
            require_free(self.tar)
        return self._folder.earlier_runs()

    def sink(self, *, keep_times: bool = False, part: str = "") -> ArchiveOutput:
        """Open a sink into the hidden folder."""
        return self._folder.sink(keep_times=keep_times, part=part)

    def fold(self, *, writing: bool = True) -> Fold:
        """Return how the hidden folder's file system compares names."""
        return self._folder.fold(writing=writing)

    def finish(self, plan: ArchivePlan) -> str:
        """Write the tar, with members in the order of the inputs, delete the hidden folder, and return the tar."""
        written = pack(self._folder.root, self.tar, plan, self.shard_bytes)
        more = f" to {written[-1].name}" if len(written) > 1 else ""
        return os.path.abspath(written[0] if written else self.tar) + more  # noqa: PTH100


def open_destination(src: str | Path, dst: str | Path, archive: ArchiveConfig) -> Destination:
    """Choose what `dst` is; raise `SetupError` when it cannot take the results of `src`.

    A `dst` with the suffix of an image is a file where `src` is one file, and a `dst` that ends with `.tar` is a tar,
    unless there is a folder of that name.
    """
    if not str(dst):
        raise SetupError("The name of the output is empty; name a folder.")
    if is_url(dst):
        if archive.keep_times:
            raise SetupError(f'"{dst}" sets the times of its objects itself; leave out --times.')
        return StoreDestination(str(dst))
    dst = Path(dst)
    if dst.suffix.lower() == ".tar" and not dst.is_dir():
        return TarDestination(dst, archive.shard_bytes, archive.overwrite)
    if archive.shard_bytes is not None:
        raise SetupError(f'--shard-bytes is for an output tar; "{dst}" does not end with .tar.')
    if not is_url(src) and _is_one_photo(Path(src)) and is_image_name(dst.name) and not dst.is_dir():
        return _file_destination(Path(src), dst, archive)
    if dst.exists() and not dst.is_dir():
        raise SetupError(f'The output "{dst}" is a file; name a folder.')
    if dst.exists() and not is_url(src) and Path(src).is_dir() and Path(src).samefile(dst):
        raise SetupError("Source and output are the same folder; the originals would be overwritten.")
    return FolderDestination(dst)


def _is_one_photo(src: Path) -> bool:
    return src.is_file() and (is_image_name(src.name) or not src.suffix)


def _file_destination(src: Path, dst: Path, archive: ArchiveConfig) -> FileDestination:
    if dst.exists() and src.samefile(dst):
        raise SetupError(f'The result would replace the photo "{src}" itself; choose another name.')
    if dst.exists() and not archive.overwrite:
        raise SetupError(f'"{dst}" is there already; --overwrite replaces it.')
    if dst.suffix.lower() not in set(FORMATS.values()) | {".jpeg", ".tiff"}:
        raise SetupError(f'"{dst.suffix}" files cannot be written; name a {", ".join(FORMATS.values())} file.')
    return FileDestination(dst)
