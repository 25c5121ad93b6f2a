"""A source over an archive of files: gives what the manifest does not know as done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import SkipImage
from engine.manifest import Entry, Manifest
from engine.naming import output_name
from engine.records import Failed, Options, Outcome, Record
from engine.sources.listing import Input, Listing


@dataclass(frozen=True, slots=True)
class Ticket:
    """What an archive record needs at its end, carried in `Record.ack`."""

    identity: str
    output: str
    """Path of the result, relative to the output folder."""


class ArchiveSource:
    """Lists inputs, leaves out what is done, reads the rest, and records each outcome in the manifest."""

    def __init__(
        self, listing: Listing, manifest: Manifest, dst: Path, options: Options, recipe: str, overwrite: bool = False
    ) -> None:
        """`recipe` identifies model and settings: what was made by another recipe is made again."""
        self._listing = listing
        self._manifest = manifest
        self._dst = dst
        self._options = options
        self._recipe = recipe
        self._overwrite = overwrite
        self._claimed: set[int] = set()
        self.num_skipped = 0
        """Inputs that were already done."""

    def records(self) -> Iterator[Record[bytes] | Failed | None]:
        """Iterate over what is not done; blocks only to read files."""
        for item in self._listing:
            try:
                record = self._record(item)
            except SkipImage as error:
                yield Failed(key=printable(item.key), stage="read", reason=str(error), ack=Ticket(item.identity, ""))
            else:
                if record is None:
                    self.num_skipped += 1
                else:
                    yield record

    def acknowledge(self, outcome: Outcome) -> None:
        """Record `outcome` in the manifest; raises `StopRun` when that cannot be written."""
        ticket: Ticket = outcome.ack
        entry = Entry(key=outcome.key, identity=ticket.identity, recipe=self._recipe)
        if isinstance(outcome, Failed):
            self._manifest.record(replace(entry, stage=outcome.stage, error=outcome.reason))
        else:
            stored = outcome.payload
            self._manifest.record(
                replace(entry, output=stored.location, num_bytes=stored.num_bytes, notes=stored.notes)
            )

    def _record(self, item: Input) -> Record[bytes] | None:
        """Read `item`, or give None when it is done; raises `SkipImage`."""
        if printable(item.key) != item.key:
            raise SkipImage("name is not UTF-8; rename the file (convmv does it for whole trees)")
        output, format = output_name(item.key, self._options.format)
        self._claim(output)
        if not self._overwrite and self._is_done(item, output):
            return None
        return Record(
            key=item.key,
            payload=_read(item),
            options=replace(self._options, format=format),
            ack=Ticket(item.identity, output),
        )

    def _claim(self, output: str) -> None:
        """Refuse an output name that an earlier input of this run has; its hash is kept, which is small."""
        if hash(output) in self._claimed:
            raise SkipImage(f"another input already becomes {output}")
        self._claimed.add(hash(output))

    def _is_done(self, item: Input, output: str) -> bool:
        """Whether the result is there and made from this very input by this recipe.

        Raises `SkipImage` when a file is in the way that no run of this folder made.
        """
        try:
            found = (self._dst / output).stat()
        except OSError:
            return False
        entry = self._manifest.find(item.key)
        if entry is None and found.st_ctime < self._manifest.created_s:
            raise SkipImage(f"{output} was there before the first run; --overwrite replaces it")
        return (
            entry is not None
            and entry.state == "done"
            and (entry.identity, entry.recipe, entry.output) == (item.identity, self._recipe, output)
            and entry.num_bytes == found.st_size
        )


def printable(key: str) -> str:
    r"""Show a file name that is not UTF-8 with `\xNN` for its strange bytes."""
    return key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read(item: Input) -> bytes:
    try:
        return item.read()
    except OSError as error:
        raise SkipImage(f"cannot be read: {error.strerror or error}") from error
