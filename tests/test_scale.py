"""The arithmetic of docs/scale.md is that of `solstice plan`."""

from __future__ import annotations

import re

from engine.bench.plan import estimate_archive
from tests import ROOT


def test_the_table_is_what_the_plan_computes() -> None:
    text = (ROOT / "docs/scale.md").read_text()
    rows = re.findall(r"^\| ([\d,]+) \| ([\d,.]+) \(([^)]+)\) \| (.*) \|$", text, re.MULTILINE)
    assert [int(row[0].replace(",", "")) for row in rows] == 2 * [10**6, 10**8, 10**9]
    for photos, rate, _, values in rows:
        estimate = estimate_archive(int(photos.replace(",", "")), float(rate.replace(",", "")), 7.0)
        assert values.split(" | ") == [
            f"{estimate.machine_hours:,.1f}",
            f"{estimate.machines:,}",
            f"{estimate.requests:,}",
            f"{estimate.manifest_bytes / 1e9:,.2f} GB",
            f"{estimate.planning_bytes / 1e9:,.1f} GB",
        ]
