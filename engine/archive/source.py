"""A source over an archive of files: gives what the manifest does not know as done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from engine.archive.manifest import ManifestEntry
from engine.codec.formats import output_name
from engine.errors import SkipImage
from engine.flow import in_threads
from engine.listing import Input, Listing, printable
from engine.options import Options
from engine.ports import ArchiveOutput
from engine.records import Failed, Origin, Outcome, Record


@dataclass(slots=True, kw_only=True)
class ArchiveOrigin(Origin):
    """Origin of a record that an `ArchiveSource` yields."""

    identity: str
    """Size and time of the input, as the manifest keeps them."""


@dataclass(frozen=True, slots=True)
class _Todo:
    item: Input
    output: str
    format: str


class Ledger(Protocol):
    """Knows what became of each input, such as an `engine.archive.manifest.Manifest`."""

    @property
    def created_s(self) -> float:
        """When the output folder's first run started, in seconds since 1970."""
        ...

    def find(self, key: str) -> ManifestEntry | None:
        """Tell what is known of `key`."""
        ...

    def record(self, entry: ManifestEntry) -> None:
        """Keep `entry`."""
        ...


class ArchiveSource:
    """Lists inputs, leaves out what is done, reads the rest, and records each outcome in the manifest."""

    def __init__(
        self,
        listing: Listing,
        manifest: Ledger,
        output: ArchiveOutput,
        options: Options,
        recipe: str,
        *,
        overwrite: bool = False,
        read_ahead: int = 1,
    ) -> None:
        """`recipe` identifies model and settings: what was made by another recipe is made again.

        `read_ahead` inputs are read at the same time; more than 1 only for listings whose inputs can be read in any
        order.
        """
        self._listing = listing
        self._manifest = manifest
        self._output = output
        self._options = options
        self._recipe = recipe
        self._overwrite = overwrite
        self._read_ahead = read_ahead
        self._claimed: dict[int, int] = {}
        self.num_skipped = 0
        """Inputs that were already done."""

    def records(self) -> Iterator[Record[bytes] | Failed | None]:
        """Iterate over what is not done; blocks only to read."""
        if self._read_ahead == 1:
            yield from map(self._read, self._todo())
        else:
            yield from in_threads(self._read, self._todo(), self._read_ahead, "read")

    def acknowledge(self, outcome: Outcome) -> None:
        """Record `outcome` in the manifest; raises `StopRun` when that cannot be written."""
        self._manifest.record(entry_of(outcome, self._recipe))

    def _todo(self) -> Iterator[_Todo]:
        """Iterate over inputs that are not done, bad ones included."""
        for item in self._listing:
            output, format = output_name(item.key, self._options.format)
            try:
                done = self._is_repeated(item, output) or self._is_done(item, output)
            except SkipImage as error:
                yield _Todo(replace(item, read=partial(_raise, error)), "", format)
            else:
                if done:
                    self.num_skipped += 1
                else:
                    yield _Todo(item, output, format)

    def _read(self, todo: _Todo) -> Record[bytes] | Failed:
        """Read one input; runs in several threads."""
        item = todo.item
        key = printable(item.key)
        origin = ArchiveOrigin(identity=item.identity, output=todo.output, modified_ns=item.modified_ns)
        options = replace(self._options, format=todo.format)
        started_s = time.perf_counter()
        try:
            outcome: Record[bytes] | Failed = Record(key=key, payload=item.read(), options=options, origin=origin)
        except SkipImage as error:
            outcome = Failed(key=key, stage="read", reason=str(error), origin=origin)
        except OSError as error:
            outcome = Failed(key=key, stage="read", reason=f"cannot be read: {error.strerror or error}", origin=origin)
        outcome.timings["read"] = time.perf_counter() - started_s
        return outcome

    def _is_repeated(self, item: Input, output: str) -> bool:
        """Whether this very input was given before in this run, as a list may do.

        Raises `SkipImage` for a name that cannot be kept, and for one that another input's result has already. Only
        the hashes of names are kept: some bytes for each of the millions that an archive may have.
        """
        if printable(item.key) != item.key:
            raise SkipImage("name is not UTF-8; rename the file (convmv does it for whole trees)")
        itself = hash((item.key, item.identity, item.path))
        first = self._claimed.get(hash(output))
        if first not in (None, itself):
            raise SkipImage(f"another input already becomes {output}")
        self._claimed[hash(output)] = itself
        return first == itself

    def _is_done(self, item: Input, output: str) -> bool:
        """Whether the result is there and made from this very input by this recipe.

        Raises `SkipImage` when a file is in the way that no run of this folder made, or that is the input itself.
        """
        found = self._output.find(output)
        if found is None:
            return False
        if found.file_id is not None and found.file_id == item.file_id():
            raise SkipImage("its result would replace the photo itself; choose another output folder")
        if self._overwrite:
            return False
        entry = self._manifest.find(item.key)
        made_here = entry is not None and entry.output == output
        if not made_here and found.changed_s is not None and found.changed_s < self._manifest.created_s:
            raise SkipImage(f"{output} was there before the first run; --overwrite replaces it")
        return (
            entry is not None
            and entry.state == "done"
            and (entry.identity, entry.recipe, entry.output) == (item.identity, self._recipe, output)
            and entry.num_bytes == found.num_bytes
        )


def entry_of(outcome: Outcome, recipe: str) -> ManifestEntry:
    """Say what became of an image that an `ArchiveSource` gave, as the manifest keeps it."""
    assert isinstance(outcome.origin, ArchiveOrigin)
    entry = ManifestEntry(key=outcome.key, identity=outcome.origin.identity, recipe=recipe)
    if isinstance(outcome, Failed):
        return replace(entry, stage=outcome.stage, error=outcome.reason)
    stored = outcome.payload
    return replace(entry, output=stored.location, num_bytes=stored.num_bytes, notes=stored.notes)


def _raise(error: SkipImage) -> bytes:
    raise error
