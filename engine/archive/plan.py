"""What a run does with each input of an archive, decided before the first one is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from engine.archive.config import ArchiveConfig
from engine.archive.manifest import EarlierRuns, ManifestEntry
from engine.archive.names import Fold, ResultName, assign_names
from engine.codec.formats import output_name
from engine.errors import SetupError, SkipImage
from engine.listing import Input, Inventory, printable
from engine.options import Options
from engine.ports import ArchiveOutput, Found


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """One input that a run translates or reports as failed."""

    item: Input
    output: str
    """Path of the result, relative to the output folder."""
    format: str
    """Output format."""
    remark: str = ""
    """What the user should know about the result's name."""
    failure: str = ""
    """Why it cannot be translated; empty when it can."""


@dataclass(slots=True, kw_only=True)
class ArchivePlan:
    """All inputs of an archive, sorted into those to translate and those that are done."""

    todo: list[PlannedInput] = field(default_factory=list)
    done: dict[str, str] = field(default_factory=dict)
    """Output of each input that an earlier run translated, by its key."""
    inputs_by_output: dict[str, Input] = field(default_factory=dict)
    """Every input with a result, by the result's name."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Files and folders that are left out, by kind."""
    sidecars: list[Input] = field(default_factory=list)
    read_ahead: int = 1

    @property
    def num_inputs(self) -> int:
        """Inputs found."""
        return len(self.todo) + len(self.done)

    @property
    def num_skipped(self) -> int:
        """Inputs that are done already."""
        return len(self.done)

    @property
    def num_bytes(self) -> int:
        """Size of the inputs to translate, as far as it is known."""
        return sum(planned.item.num_bytes or 0 for planned in self.todo)

    @property
    def outputs(self) -> list[str]:
        """Names of all results, in the order of the inputs."""
        return list(self.inputs_by_output)

    def leave_out_sidecars(self) -> None:
        """Count all sidecars as left out."""
        self.left_out.update(PurePosixPath(item.key).suffix.lower() for item in self.sidecars)

    @property
    def renamed(self) -> list[PlannedInput]:
        """Inputs to translate whose results get a second name."""
        return [planned for planned in self.todo if planned.remark]


def make_plan(
    inventory: Inventory,
    earlier: EarlierRuns,
    output: ArchiveOutput,
    options: Options,
    recipe: str,
    config: ArchiveConfig,
    *,
    source: str | None = None,
    fold: Fold = str,
    fixed_output: str | None = None,
) -> ArchivePlan:
    """Sort the inputs of an archive into those that are done and those to translate, and name the results.

    An input is done when its result is there and was made from this version of it with this `recipe` (a hash of model
    and settings). `fixed_output` names the result of a single input. Raises `SetupError` when the archive is not the
    `source` of the earlier runs and its results would replace theirs.
    """
    plan = ArchivePlan(left_out=inventory.left_out.copy(), sidecars=inventory.sidecars, read_ahead=inventory.read_ahead)
    names = _names(inventory.inputs, earlier, output, options, config, fold, fixed_output)
    replaced: list[str] = []
    for item, name in zip(inventory.inputs, names, strict=True):
        plan.inputs_by_output[name.output] = item
        entry = earlier.entries.get(item.key)
        try:
            done = _is_done(item, name, entry, earlier, output, recipe, config)
        except SkipImage as error:
            plan.todo.append(PlannedInput(item, name.output, name.format, failure=str(error)))
            continue
        if done:
            plan.done[item.key] = name.output
        else:
            plan.todo.append(PlannedInput(item, name.output, name.format, name.remark))
            if entry is not None and entry.state == "done" and entry.identity != item.identity and item.identity:
                replaced.append(item.key)
    if replaced and not config.overwrite and earlier.settings.get("source", source) != source:
        raise SetupError(
            f'The output holds results of another source, "{earlier.settings["source"]}", of which {len(replaced):,} '
            f'would be replaced, such as "{printable(replaced[0])}"; choose another output folder, or --overwrite.'
        )
    return plan


def _names(
    inputs: list[Input],
    earlier: EarlierRuns,
    output: ArchiveOutput,
    options: Options,
    config: ArchiveConfig,
    fold: Fold,
    fixed_output: str | None,
) -> list[ResultName]:
    if fixed_output is not None:
        return [ResultName(fixed_output, output_name(fixed_output, "keep")[1]) for _ in inputs]
    if not earlier.entries:
        return assign_names(inputs, options.format, config, {}, {}, fold)
    keys, identities = {item.key for item in inputs}, {item.identity for item in inputs}
    gone = (earlier.entries[key] for key in earlier.entries if key not in keys)
    reserved = {} if config.overwrite else dict(_reserved(gone, identities, output, fold))
    del keys, identities
    return assign_names(inputs, options.format, config, _Owned(earlier.entries), reserved, fold)


class _Owned(Mapping[str, str]):
    """The results' names of earlier runs, by the keys of their inputs."""

    def __init__(self, entries: Mapping[str, ManifestEntry]) -> None:
        self._entries = entries

    def __getitem__(self, key: str) -> str:
        output = self._entries[key].output
        if output is None:
            raise KeyError(key)
        return output

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._entries if self._entries[key].output is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        return bool(self._entries)


def _reserved(
    entries: Iterable[ManifestEntry], identities: set[str], output: ArchiveOutput, fold: Fold
) -> Iterable[tuple[str, str]]:
    """Yield folded name and key of each result whose input is gone from this archive and was not merely renamed."""
    for entry in entries:
        if entry.output is None:
            continue
        if entry.state == "done" and entry.identity not in identities and output.find(entry.output) is not None:
            yield fold(entry.output), entry.key


def _is_done(
    item: Input,
    name: ResultName,
    entry: ManifestEntry | None,
    earlier: EarlierRuns,
    output: ArchiveOutput,
    recipe: str,
    config: ArchiveConfig,
) -> bool:
    """Return whether the result is there and made from this version of the input by this recipe.

    Raises `SkipImage` when the result cannot have its name: a file is in the way that no run made, it is the input
    itself, or the name is not text.
    """
    if printable(item.key) != item.key:
        raise SkipImage("name is not UTF-8; rename the file (convmv does it for whole trees)")
    found = output.find(name.output)
    if found is None:
        return False
    if not config.overwrite and entry is not None and _is_result(entry, item, name, recipe, found):
        return True
    if found.file_id is not None and found.file_id == item.file_id():
        raise SkipImage("its result would replace the photo itself; choose another output folder")
    made_here = entry is not None and entry.output == name.output
    before = found.changed_s is not None and found.changed_s < earlier.created_s
    if before and not made_here and not config.overwrite:
        raise SkipImage(f"{name.output} was there before the first run; --overwrite replaces it")
    return False


def _is_result(entry: ManifestEntry, item: Input, name: ResultName, recipe: str, found: Found) -> bool:
    return (
        entry.state == "done"
        and (entry.identity, entry.recipe, entry.output) == (item.identity, recipe, name.output)
        and entry.num_bytes == found.num_bytes
    )
