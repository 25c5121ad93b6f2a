"""The figures of a campaign as a JSON document, and as the section of docs/reliability.md that quotes it.

`make faults` writes `build/faults/campaign.json`. To quote it in the docs:

    python -m tests.faults.campaign.record build/faults/campaign.json
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import ROOT
from tests.faults.campaign.checks import Counts

FIGURES = ROOT / "build" / "faults"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- campaign: begin; written by tests/faults/campaign/record.py -->"
END = "<!-- campaign: end -->"


def document(command: str, seed: int) -> dict[str, Any]:
    """Return the document of a campaign that begins now."""
    machine = f"{os.cpu_count()} cores, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    return {"date": time.strftime("%Y-%m-%d"), "command": command, "seed": seed, "machine": machine, "parts": {}}


def add(campaign: dict[str, Any], part: str, verdict: str, seconds: float, counts: Counts) -> None:
    """Add what one part has counted."""
    campaign["parts"][part] = {"verdict": verdict, "seconds": round(seconds), "counts": dict(counts)}


def save(campaign: Mapping[str, Any]) -> Path:
    """Write the document where `make faults` leaves it, and return its path."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    path = FIGURES / "campaign.json"
    path.write_text(json.dumps(campaign, indent=1) + "\n")
    return path


def as_markdown(campaign: Mapping[str, Any]) -> str:
    """Return the document as a sentence and a table."""
    lines = [
        f"`{campaign['command']}` on {campaign['date']}, {campaign['machine']}, seed {campaign['seed']}:",
        "",
        "| part | verdict | counts |",
        "| --- | --- | --- |",
    ]
    for name, part in campaign["parts"].items():
        counts = "; ".join(f"{number:,} {what}" for what, number in part["counts"].items())
        lines.append(f"| {name}, {part['seconds']:,} s | {part['verdict']} | {counts} |")
    return "\n".join(lines)


def quote(campaign: Mapping[str, Any], page: str) -> str:
    """Return `page` with the figures of `campaign` between the comments that mark their place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"the page has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{as_markdown(campaign)}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(quote(json.loads(Path(sys.argv[1]).read_text()), PAGE.read_text()))
