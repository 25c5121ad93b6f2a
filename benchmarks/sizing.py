"""Fill in the examples of docs/sizing.md from its measurement, docs/sizing-bench.json.

    python -m benchmarks.sizing                  # after a change of `solstice plan`
    python -m benchmarks.sizing gpu.json         # with another document of `solstice bench --json`

Each block that begins with `$ solstice plan` gets what that command prints; the table between the markers gets the
steps of the first example. No number of these is typed by hand.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner

from engine.bench.document import load, save
from engine.bench.plan import DAY_S, Load, Plan, plan
from engine.cli.plan import plan_deployment
from engine.options import Size

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/sizing.md"
BENCH = ROOT / "docs/sizing-bench.json"

_BLOCK = re.compile(r"```console\n(\$ solstice plan [^\n]+)\n.*?```", re.DOTALL)
_STEPS = re.compile(r"(<!-- steps -->\n).*?(<!-- end of steps -->)", re.DOTALL)
_WIDTH = "100"
"""Columns of the printed tables."""


def filled(page: str, bench: Path) -> str:
    """Return the text of a page with the outputs of its commands and its steps, from the document at `bench`."""
    document = load(bench)
    page = _BLOCK.sub(lambda block: f"```console\n{block[1]}\n{printed(block[1], bench)}```", page)
    first = _BLOCK.search(page)
    if first is None:
        raise ValueError("the page has no block that begins with $ solstice plan")
    asked = asked_for(first[1])
    return _STEPS.sub(lambda block: f"{block[1]}{steps(asked, plan(asked, document))}{block[2]}", page)


def printed(command: str, bench: Path) -> str:
    """Return what `$ solstice plan …` prints, with the document at `bench` in the place of the one it names."""
    words = shlex.split(command)[3:]
    words[words.index("--bench") + 1] = str(bench)
    shown = CliRunner().invoke(plan_deployment, words, catch_exceptions=False, env={"COLUMNS": _WIDTH})
    if shown.exit_code:
        raise ValueError(f"{command}: {shown.output}")
    return "\n".join(line.rstrip() for line in shown.output.splitlines()) + "\n"


def asked_for(command: str) -> Load:
    """Return the load of `$ solstice plan --images-per-day N --size S …` with all other settings at their defaults."""
    words = shlex.split(command)

    def value(name: str) -> str:
        return words[words.index(name) + 1]

    return Load(images_per_day=int(value("--images-per-day")), size=Size.parse(value("--size")))


def steps(load: Load, made: Plan) -> str:
    """Return the computation of a plan as a table in Markdown."""
    rate, planned = made.images_per_s_per_worker, made.images_per_s_per_worker * load.utilisation
    memory = made.memory_bytes_per_worker
    rows = [
        ("step", "computation", "result"),
        ("---", "---", "---"),
        ("rate of one worker", f"measured on {made.machine}", f"{rate:,.2f} images/s"),
        ("rate to plan with", f"{rate:,.2f} x {load.utilisation:g} (`--utilisation`)", f"{planned:,.2f} images/s"),
        ("mean load", f"{load.images_per_day:,} / {DAY_S:,} s", f"{made.mean_images_per_s:,.2f} images/s"),
        (
            "peak load",
            f"{made.mean_images_per_s:,.2f} x {load.peak_factor:g} (`--peak-factor`)",
            f"{made.peak_images_per_s:,.2f} images/s",
        ),
        (
            "workers at the mean",
            f"{made.mean_images_per_s:,.2f} / {planned:,.2f}, rounded up",
            f"{made.workers_at_mean:,}",
        ),
        (
            "workers at the peak",
            f"{made.peak_images_per_s:,.2f} / {planned:,.2f}, rounded up",
            f"{made.workers_at_peak:,}",
        ),
        ("partitions", f"2 x {made.workers_at_peak:,}", f"{made.partitions:,}"),
        (
            "lag threshold",
            f"{rate:,.2f} x {load.catch_up_s:g} s (`--catch-up`)",
            f"{made.lag_threshold:,} jobs per worker",
        ),
        (
            "memory",
            f"largest workload measured, {memory / 1.5 / 2**20:,.0f} MiB, x 1.5",
            f"{math.ceil(memory / 2**20):,} MiB",
        ),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill in the page; with a document, keep that one from now on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path, nargs="?", help="another document to keep and to use")
    asked = parser.parse_args(arguments)
    if asked.document is not None:
        save(load(asked.document), BENCH)
    PAGE.write_text(filled(PAGE.read_text(), BENCH))


if __name__ == "__main__":
    main()
