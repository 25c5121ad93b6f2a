"""Make `benchmarks/RESULTS.md`, its pictures, and the tables in README.md from the files in `benchmarks/results/`.

Nothing in RESULTS.md is typed by hand: a test compares it with what `page` returns.

    python -m benchmarks.render
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import readme
from engine.bench.pictures import draw
from engine.bench.rows import rows_of, workload_title
from engine.bench.table import in_words, number, percent, start_in_words
from engine.bench.timing import Spread

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
PAGE = FOLDER / "RESULTS.md"

INTRODUCTION = """# Results

Made by `python -m benchmarks.render` from the JSON files in `benchmarks/results/`, one per machine; edit neither.
`python -m benchmarks.run_all` measures a machine and makes this page anew. Values are medians, with the extremes of
all rounds in parentheses; ~ marks what is too noisy to trust. What the words mean is in
[docs/benchmarking.md](../docs/benchmarking.md), what was tried on the way in [LOG.md](LOG.md).
"""
NOTHING = """
No machine has been measured with this version yet.
"""

Results = Mapping[str, Any]
"""Content of one file in `benchmarks/results/`."""


@dataclass(frozen=True)
class Goal:
    """One of the project's goals for a CPU."""

    what: str
    amx: float
    """Goal on a CPU with AMX."""
    avx512: float
    """Goal on a CPU with AVX-512 BF16 and without AMX."""
    measured: Callable[[Mapping[str, Any]], Spread]
    """Finds the measurement among the runs; raises `KeyError` where it was not made."""
    unit: str = "times"
    at_most: bool = False

    def reached(self, value: float, *, amx: bool) -> bool:
        """Return whether `value` reaches the goal of this kind of CPU."""
        goal = self.amx if amx else self.avx512
        return value <= goal if self.at_most else value >= goal


def _result(runs: Mapping[str, Any], name: str) -> Any:
    return runs[name]["result"]


def _against_openvino(runs: Mapping[str, Any]) -> Spread:
    """Divide the best of Solstice by the best of OpenVINO, whatever the batch."""
    rates = {name: _spread(one) for name, one in _result(runs, "runtimes")["images_per_s"].items()}
    best = [
        max((one for name, one in rates.items() if name.startswith(runtime)), key=lambda one: one.median, default=None)
        for runtime in ("Solstice", "OpenVINO")
    ]
    if best[0] is None or best[1] is None:
        raise KeyError("OpenVINO was not measured")
    return best[0].over(best[1])


GOALS = (
    Goal(
        "generator over eager fp32, batch 1, ngf 64",
        8,
        2.6,
        lambda runs: _spread(_result(runs, "bench-ngf64")["generator"]["times_reference"]),
    ),
    Goal(
        "generator over its ceiling, ngf 64",
        0.6,
        0.9,
        lambda runs: _spread(_result(runs, "bench-ngf64")["generator"]["share_of_ceiling"]),
        "share",
    ),
    Goal("generator over OpenVINO, ngf 64", 1.2, 1.2, _against_openvino),
    Goal(
        "whole process, warm, over the reference implementation (or a loop of its steps: see peer)",
        6,
        2.2,
        lambda runs: _spread(_result(runs, "peer")["ratio"]),
    ),
    Goal(
        "12 MP photos with the defaults over the 15-line script",
        3,
        2,
        lambda runs: _spread(_result(runs, "camera-12mp")["ratio"]),
    ),
    Goal(
        "one photo, whole process, warm",
        2,
        2.5,
        lambda runs: _spread(_result(runs, "start")["one photo"]["seconds"]),
        "s",
        at_most=True,
    ),
)
"""For two cores. Ratios and shares shall be at least this, times at most."""


def main() -> None:
    """Draw the pictures, then write the page."""
    documents = read()
    for name, document in documents.items():
        for run_name, run in document["runs"].items():
            if is_bench(run):
                draw(run["result"], RESULTS / name / run_name)
    PAGE.write_text(page(documents))
    readme.write(documents)


def read(folder: Path = RESULTS) -> dict[str, Results]:
    """Return the results of all machines by the name of their file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def page(documents: Mapping[str, Results]) -> str:
    """Return the page as Markdown."""
    parts = [INTRODUCTION] if documents else [INTRODUCTION, NOTHING]
    for name, document in documents.items():
        parts.append("\n".join(_machine(name, document)))
    return "\n".join(parts).rstrip() + "\n"


def is_bench(run: Mapping[str, Any]) -> bool:
    """Return whether a run holds a document of `solstice bench`."""
    return str(run.get("result", {}).get("schema", "")).startswith("solstice-bench/")


def _machine(name: str, document: Results) -> Iterator[str]:
    machine = document["machine"]
    kind = "AMX" if machine["amx"] else "bf16 without AMX" if machine["bf16"] else "no bf16"
    yield f"## {machine['cpu']}, {machine['cores']} cores{', ' + machine['gpu'] if machine['gpu'] else ''}\n"
    yield f"{kind}, {machine['memory_bytes'] / 2**30:.0f} GiB. `benchmarks/results/{name}.json`.\n"
    if machine["gpu"] is None and machine["bf16"]:
        yield from _goals(document["runs"], amx=machine["amx"])
    for run_name, run in document["runs"].items():
        yield f"### {run_name}\n"
        yield f"`{run['command']}`, {run['date']}.\n"
        if "failed" in run:
            yield f"**Not measured**: {run['failed']}.\n"
        elif is_bench(run):
            yield from _bench(f"results/{name}/{run_name}", run["result"])
        else:
            yield from _plain(run["result"])


def _goals(runs: Mapping[str, Any], *, amx: bool) -> Iterator[str]:
    rows = []
    for goal in GOALS:
        aim = f"at {'most' if goal.at_most else 'least'} {number(goal.amx if amx else goal.avx512)} {goal.unit}"
        try:
            spread = goal.measured(runs)
        except KeyError:
            rows.append([goal.what, aim, "", "not measured"])
            continue
        verdicts = {goal.reached(value, amx=amx) for value in (min(spread.values), max(spread.values))}
        verdict = "reached" if goal.reached(spread.median, amx=amx) else "**not reached**"
        verdict = "too noisy to tell" if spread.noisy and len(verdicts) > 1 else verdict
        rows.append([goal.what, aim, in_words(spread), verdict])
    yield _table(["goal", "", "measured", ""], rows)


def _bench(pictures: str, document: Mapping[str, Any]) -> Iterator[str]:
    settings, noise, versions = document["settings"], document["noise"], document["versions"]
    yield (
        f"{settings['model']} (ngf {settings['network']['ngf']}), {settings['backend']} {settings['precision']}, batch "
        f"{settings['batch']}, {settings['rounds']} rounds; torch {versions['torch']}, Python {versions['python']}. "
        f"Start: {start_in_words(document['start'])}.\n"
    )
    if not noise["trusted"]:
        yield f"**Too noisy to trust**: {' and '.join(noise['reasons'])}.\n"
    group, rows = "", []
    for row in rows_of(dict(document)):
        rows.append([row.group if row.group != group else "", row.name, in_words(row.spread), row.unit])
        group = row.group
    yield _table(["", "measurement", "value", "unit"], rows)
    limits = [
        [
            workload_title(workload),
            workload["end_to_end"]["limited_by"],
            percent(_spread(workload["end_to_end"]["share_of_ceiling"])),
            percent(_spread(workload["end_to_end"]["cpu_use"])),
        ]
        for workload in document["workloads"]
    ]
    yield _table(["workload", "limited by", "of the ceiling", "processor"], limits)
    for picture, text in (("stages", "stages"), ("batch", "rate by batch"), ("size", "rate by size")):
        yield f"![{settings['model']}: {text}]({pictures}/{picture}.png)\n"


def _plain(result: Mapping[str, Any]) -> Iterator[str]:
    """Lay out any result: a table of its values, and one for each list of objects in it."""
    values = list(_values({key: value for key, value in result.items() if key not in ("benchmark", "machine")}))
    yield _table(["measurement", "value"], [[name, text] for name, text in values if text is not None])
    for name, rows in _lists(result):
        columns = list(dict.fromkeys(key for row in rows for key in row))
        yield f"{_words(name)}:\n"
        yield _table([*map(_words, columns)], [[_text(row.get(column)) for column in columns] for row in rows])


def _values(part: Any, name: str = "") -> Iterator[tuple[str, str | None]]:
    """Iterate over names and values; lists of objects are left to tables of their own."""
    if _is_spread(part) or not isinstance(part, dict | list):
        yield _words(name), _text(part)
    elif isinstance(part, dict):
        for key, value in part.items():
            yield from _values(value, f"{name}, {key}" if name else key)
    elif not any(isinstance(one, dict) for one in part):
        yield _words(name), ", ".join(map(_text, part))


def _lists(part: Any, name: str = "") -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    if isinstance(part, dict) and not _is_spread(part):
        for key, value in part.items():
            yield from _lists(value, f"{name}, {key}" if name else key)
    elif isinstance(part, list) and part and all(isinstance(one, dict) for one in part):
        yield name, part


def _is_spread(part: Any) -> bool:
    return isinstance(part, dict) and {"median", "min", "max"} <= set(part)


def _text(value: Any) -> str:
    if _is_spread(value):
        return in_words(Spread(tuple(value.get("values") or (value["median"], value["min"], value["max"]))))
    if isinstance(value, float):
        return number(value)
    return "" if value is None else str(value)


def _words(name: str) -> str:
    return name.replace("_", " ").replace(" per s", "/s").replace("|", "/")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _spread(document: Any) -> Spread:
    return Spread.from_document(document)


if __name__ == "__main__":
    main()
