"""Pages of TIFFs and frames of animations as inputs of their own, for `--pages all`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from engine.codec.pages import num_pages, single_page
from engine.errors import SkipImage
from engine.listing import Input, Inventory
from engine.listing.inputs import suffix_of

_CAN_HAVE_PAGES = frozenset({".tif", ".tiff", ".gif", ".png", ".apng", ".webp", ".avif", ".heic", ".heif", ".hif"})


def with_all_pages(inventory: Inventory) -> Inventory:
    """Return an inventory in which every page is an input; this reads each file that can have several."""
    inputs: list[Input] = []
    for item in inventory.inputs:
        inputs.append(item)
        if suffix_of(item.file_key + item.suffix) in _CAN_HAVE_PAGES:
            try:
                total = num_pages(item.read())
            except (OSError, SkipImage):
                continue  # it fails when the run reads it, with the same reason
            if total > 1:
                inputs[-1:] = [PageInput.of(item, page, total) for page in range(total)]
    return replace(inventory, inputs=inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageInput(Input):
    """One page of another input."""

    whole: Input
    number: int

    @classmethod
    def of(cls, whole: Input, number: int, total: int) -> PageInput:
        """Return page `number`, from 0, of `total`; the first keeps the key of the whole."""
        return cls(
            key=f"{whole.key}#page={number + 1}" if number else whole.key,
            identity=f"{whole.identity}#{total}",
            num_bytes=whole.num_bytes,
            modified_ns=whole.modified_ns,
            suffix=whole.suffix,
            whole=whole,
            number=number,
        )

    @property
    def page(self) -> int:
        """Page of the file, from 0."""
        return self.number

    @property
    def file_key(self) -> str:
        """Key of the whole."""
        return self.whole.file_key

    @property
    def path(self) -> Path | None:
        """Path of the whole, if it is on disk."""
        return self.whole.path

    def read(self) -> bytes:
        """Return the page as a file of its own."""
        return single_page(self.whole.read(), self.number)
