"""Names of results: one for each input, the same in every run."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from pathlib import Path, PurePosixPath

from engine.archive.config import ArchiveConfig
from engine.codec.formats import output_name
from engine.listing.inputs import Input, suffix_of

Fold = Callable[[str], str]
"""Maps names that are one name to a file system to the same text."""

_SECOND_NAMES_TRIED = 100


@dataclass(frozen=True, slots=True)
class ResultName:
    """The name that the result of one input gets."""

    output: str
    """Path relative to the output folder."""
    format: str
    """Output format: a name from `engine.codec.formats.FORMATS`."""
    remark: str = ""
    """Why it is not the name that the input alone would have; empty when it is."""


def assign_names(
    inputs: Sequence[Input],
    format: str,
    config: ArchiveConfig,
    owned: Mapping[str, str],
    reserved: Mapping[str, str],
    fold: Fold = str,
) -> list[ResultName]:
    """Return the name of each input's result, in the order of `inputs`; no two are the same to the file system.

    A name that an earlier run assigned (`owned`, by key) stays. If several inputs want one name, it goes to the input
    that has it already, else to the first of them; the others get `config.name`, with a number if that is taken, too.
    `reserved` holds folded names of results whose inputs are not in this run, with the key of each input.
    """
    names = [_Candidates(item, format, config) for item in inputs]
    taken: dict[str, int] = {}
    given: dict[int, str] = {}

    def claim(i: int, output: str) -> bool:
        folded = fold(output)
        if folded in taken:
            return False
        taken[folded], given[i] = i, output
        return True

    with_own_name = [i for i, candidates in enumerate(names) if candidates.is_own]
    if owned:
        kept: list[tuple[int, str]] = []
        for i, item in enumerate(inputs):
            output = owned.get(item.key)
            if output is not None:
                kept.append((i, names[i].wanted if output == names[i].wanted else output))  # equal names are one string
        kept.sort(key=lambda pair: not names[pair[0]].is_own)
        for i, output in kept:
            if names[i].may_be(output):
                claim(i, output)
    for i in with_own_name:
        if i not in given and fold(names[i].wanted) not in reserved:
            claim(i, names[i].wanted)
    results: list[ResultName] = []
    for i, candidates in enumerate(names):
        if i not in given:
            free = (output for output in candidates if fold(output) not in reserved)
            next(output for output in free if claim(i, output))
    for i, candidates in enumerate(names):
        remark = ""
        if given[i] != candidates.wanted:
            owner = taken.get(fold(candidates.wanted))
            other = reserved.get(fold(candidates.wanted)) if owner is None else inputs[owner].key
            remark = f"stored as {given[i]}, because {candidates.wanted} is the result of {other or 'another input'}"
        results.append(ResultName(given[i], candidates.format, remark))
    return results


@lru_cache(maxsize=256)
def _format_of_kept_name(suffix: str, format: str) -> str | None:
    """Return the output format of files with this suffix whose results keep their names; None where they do not."""
    name, output_format = output_name(f"name{suffix}", format)
    return output_format if name == f"name{suffix}" else None


class _Candidates:
    """The names that the result of one input may get, best first."""

    __slots__ = ("_config", "_item", "format", "is_own", "wanted")

    def __init__(self, item: Input, format: str, config: ArchiveConfig) -> None:
        key = item.file_key + item.suffix
        kept = _format_of_kept_name(suffix_of(key), format)
        output, self.format = output_name(key, format) if kept is None else (key, kept)
        self._item = item
        self._config = config
        self.is_own = output == item.key and not item.page
        """Whether the input itself has this name."""
        page = f".page-{item.page + 1}" if item.page else ""
        self.wanted = _with_stem_suffix(output, page + config.suffix) if page or config.suffix else output

    def __iter__(self) -> Iterator[str]:
        yield self.wanted
        path = PurePosixPath(self._item.file_key)
        ext = PurePosixPath(self.wanted).suffix
        page = f".page-{self._item.page + 1}" if self._item.page else ""
        stem = path.stem + page + self._config.suffix
        second = str(path.with_name(self._config.name.format(stem=stem, suffix=path.suffix.lstrip("."), ext=ext)))
        yield second
        for number in count(2):
            yield _with_stem_suffix(second, f"-{number}")

    def may_be(self, output: str) -> bool:
        """Return whether `output` is one of the first names."""
        return output == self.wanted or output in islice(self, _SECOND_NAMES_TRIED)


def _with_stem_suffix(output: str, text: str) -> str:
    path = PurePosixPath(output)
    return str(path.with_name(f"{path.stem}{text}{path.suffix}"))


def folding_of(folder: Path, *, writing: bool = True) -> Fold:
    """Return how the file system of `folder` compares names, found by creating a file in it for a moment.

    Without `writing` only the letter case of the folder's own name is tried.

    Windows, macOS and many network drives ignore letter case; some normalise Unicode. A folder that is not there yet
    counts as one that compares names byte by byte.
    """
    if not folder.is_dir():
        return str
    if not writing:
        return folding(ignores_case=folder.with_name(folder.name.swapcase()).exists(), normalises=False)
    probe = folder / "Probe-\N{LATIN SMALL LETTER E WITH ACUTE}"
    probe.touch()
    try:
        ignores_case = probe.with_name(probe.name.swapcase()).exists()
        normalises = probe.with_name(unicodedata.normalize("NFD", probe.name)).exists()
    finally:
        probe.unlink()
    return folding(ignores_case=ignores_case, normalises=normalises)


def folding(*, ignores_case: bool, normalises: bool) -> Fold:
    """Return a function that maps equal names of such a file system to the same text."""

    def fold(name: str) -> str:
        if normalises:
            name = unicodedata.normalize("NFC", name)
        return name.casefold() if ignores_case else name

    return fold if ignores_case or normalises else str
