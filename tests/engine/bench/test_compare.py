from __future__ import annotations

import copy

import pytest

from engine.bench.compare import Change, changes, differences
from engine.bench.document import Document
from engine.bench.rows import Row
from engine.bench.timing import Spread


def change(before: tuple[float, ...], after: tuple[float, ...], *, higher_is_better: bool = True) -> Change:
    one, other = (Row("group", "name", "unit", Spread(values), higher_is_better) for values in (before, after))
    return Change(one, other)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((10.0, 10.5), (12.0, 12.5), "better"),
        ((12.0, 12.5), (10.0, 10.5), "worse"),
        ((10.0, 10.5), (10.4, 11.0), "same"),
        ((10.0, 10.01), (10.1, 10.11), "same"),  # apart, but by one per cent
        ((10.0, 20.0), (15.0, 25.0), "noisy"),
        ((10.0, 13.0), (30.0, 31.0), "better"),  # noisy, and far apart all the same
    ],
)
def test_only_changes_beyond_noise_are_marked(
    before: tuple[float, ...], after: tuple[float, ...], verdict: str
) -> None:
    assert change(before, after).verdict == verdict


def test_less_memory_is_better() -> None:
    assert change((400.0, 410.0), (300.0, 310.0), higher_is_better=False).verdict == "better"


def test_a_document_has_not_changed_against_itself(document: Document) -> None:
    assert {found.verdict for found in changes(document, document)} <= {"same", "noisy"}
    assert differences(document, document) == []


def test_workloads_of_different_sizes_are_not_compared(document: Document) -> None:
    other = copy.deepcopy(document)
    other["workloads"][0]["width"] *= 2

    assert not [found for found in changes(document, other) if found.before.group.startswith("tiny photos")]


def test_differences_name_part_setting_and_both_values(document: Document) -> None:
    other = copy.deepcopy(document)
    other["machine"]["cores"] = 99
    other["versions"]["torch"] = "9.9"

    found = differences(document, other)

    assert ("machine: cores", document["machine"]["cores"], 99) in found
    assert ("versions: torch", document["versions"]["torch"], "9.9") in found
