"""What an archive leaves out, in words: the same in the summaries of `convert` and `submit`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from engine.codec.formats import format_of, missing_extras
from engine.errors import SetupError
from engine.listing.inputs import Inventory, printable, suffix_of
from engine.system.extras import install_hint


def described(left_out: Mapping[str, int]) -> str:
    """Return `; left out: 12 .cr2, 3 .mov`, the most frequent kind first; empty when nothing is left out."""
    if not left_out:
        return ""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    return "; left out: " + ", ".join(f"{number:,} {printable(kind)}" for kind, number in kinds)


def reader_hints(left_out: Iterable[str]) -> list[str]:
    """Return how to install each missing reader of a kind that was left out, one sentence each."""
    kinds = set(left_out)
    return [
        f"{name} files are read after {install_hint(extra)}."
        for name, extra in missing_extras()
        if kinds & set(format_of(name).suffixes)
    ]


def left_out_with_sidecars(inventory: Inventory) -> Counter[str]:
    """Count what is left out by a caller that does not copy sidecars."""
    return inventory.left_out + Counter(suffix_of(item.key) for item in inventory.sidecars)


def require_inputs(inventory: Inventory, src: object) -> None:
    """Raise `SetupError` when there is nothing to translate at `src`."""
    if not inventory.inputs:
        left_out = left_out_with_sidecars(inventory)
        hints = "".join(f" {hint}" for hint in reader_hints(left_out))
        raise SetupError(f'There is no photo to translate in "{src}"{described(left_out)}.{hints}')
