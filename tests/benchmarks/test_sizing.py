"""Every number of docs/sizing.md is what its commands print from its measurement."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.sizing import BENCH, PAGE, asked_for, filled, printed
from engine.bench.document import load, save
from engine.bench.plan import plan


def test_the_page_is_what_its_measurement_gives() -> None:
    assert filled(PAGE.read_text(), BENCH) == PAGE.read_text(), "run: python -m benchmarks.sizing"


def test_another_measurement_changes_outputs_and_steps(tmp_path: Path) -> None:
    document = load(BENCH)
    for row in document["generator"]["by_side"]:
        row["mp_per_s"]["median"] *= 2
    save(document, tmp_path / "faster.json")
    page = PAGE.read_text()
    other = filled(page, tmp_path / "faster.json")
    command = re.findall(r"^\$ (solstice plan .*)", page, re.MULTILINE)[0]
    made = plan(asked_for(f"$ {command}"), document)
    assert printed(f"$ {command}", tmp_path / "faster.json") in other
    assert f"| workers at the peak | {made.peak_images_per_s:,.2f} /" in other
    assert f"| {made.partitions:,} |" in other
    assert other != page
