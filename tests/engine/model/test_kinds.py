"""Each row of the table in docs/generators.md is true."""

from __future__ import annotations

import re
from pathlib import Path

from tests.engine.model.kinds import END, PAGE, START, imported, kinds, refusals, refused


def table() -> dict[str, list[str]]:
    """Return the cells of each row of the page by the first one."""
    lines = PAGE.read_text().split(START)[1].split(END)[0].splitlines()[2:]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {name: cells for name, *cells in rows}


def test_every_kind_is_imported_and_computes_what_the_network_that_saved_it_computes(tmp_path: Path) -> None:
    rows = table()
    for name, kind in kinds().items():
        origin, how, bound = rows.pop(name)
        assert (origin, how) == (kind.origin, f"imported with `{kind.options}`" if kind.options else "imported"), name
        assert imported(kind, tmp_path) < float(bound.removeprefix("under ")) <= 1e-4, name
    assert list(rows) == list(refusals())


def test_every_other_kind_is_refused_with_the_words_of_the_page(tmp_path: Path) -> None:
    rows = table()
    for name, (origin, content) in refusals().items():
        assert rows[name] == [origin, f"refused: {refused(content, tmp_path)}", ""], name
