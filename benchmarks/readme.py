"""Fill the tables of numbers in README.md from the JSON files in `benchmarks/results/`.

`python -m benchmarks.render` does it, together with RESULTS.md. A table stands between two comments that name it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.bench.table import in_words, number
from engine.bench.timing import Spread

README = Path(__file__).parents[1] / "README.md"

Results = Mapping[str, Any]
"""Content of one file in `benchmarks/results/`."""
Runs = Mapping[str, Any]
"""What one machine measured, by name."""


@dataclass(frozen=True)
class Figure:
    """A row of a table."""

    what: str
    text: Callable[[Runs], str]
    """Returns the value with its unit; raises `KeyError` where it was not measured."""


def _spread(document: Any) -> str:
    return in_words(Spread.from_document(document))


def _peer(runs: Runs) -> str:
    result = runs["peer"]["result"]
    return f"{_spread(result['solstice_images_per_s'])} images/s, {_spread(result['ratio'])} times the reference"


def _camera(runs: Runs) -> str:
    result = runs["camera-12mp"]["result"]
    return f"{_spread(result['solstice']['images_per_s'])} photos/s, {_spread(result['ratio'])} times a 15-line script"


def _reference(runs: Runs) -> str:
    result = runs["peer"]["result"]
    return f"{_spread(result['reference_images_per_s'])} images/s ({result['reference']})"


def _generator(runs: Runs) -> str:
    generator = runs["bench-ngf64"]["result"]["generator"]
    return f"{_spread(generator['times_reference'])} times; {_spread(generator['share_of_ceiling'])} of the ceiling"


def _workload(name: str) -> Callable[[Runs], str]:
    def text(runs: Runs) -> str:
        for workload in runs["bench"]["result"]["workloads"]:
            if workload["name"] == name:
                rate = _spread(workload["end_to_end"]["images_per_s"])
                return f"{rate} images/s of {workload['width']}x{workload['height']}"
        raise KeyError(name)

    return text


def _one_photo(runs: Runs) -> str:
    return f"{_spread(runs['start']['result']['one photo']['seconds'])} s"


def _archive(runs: Runs) -> str:
    rows = runs["scaling-archive"]["result"]["archives"]
    return "; ".join(f"{row['peak_megabytes']} MB for {row['images']:,} images" for row in (rows[0], rows[-1]))


def _queue(runs: Runs) -> str:
    queue = runs["stream"]["result"]["queue"]
    p99_ms = number(queue["half_load_p99_ms"]["median"])
    return f"{_spread(queue['jobs_per_s'])} jobs/s; 99 % within {p99_ms} ms at half load"


def _queue_share(runs: Runs) -> str:
    return f"{_spread(runs['stream']['result']['against_convert']['ratio'])} of its rate"


HEADLINES = (
    Figure("256x256, ResNet-9 ngf 64", _peer),
    Figure("12-megapixel photos, shipped model, defaults", _camera),
)
FIGURES = (
    Figure("`solstice convert`, 256x256, ResNet-9 ngf 64, whole process", _peer),
    Figure("reference implementation, one image at a time", _reference),
    Figure("12-megapixel photos, shipped model, defaults, whole process", _camera),
    Figure("generator alone, ngf 64, against eager fp32 with one image", _generator),
    Figure("thumbnails, shipped model, files to files", _workload("thumbnails")),
    Figure("phone photos, shipped model, files to files", _workload("phone photos")),
    Figure("photos at full size, shipped model, files to files", _workload("full size")),
    Figure("one photo, whole process", _one_photo),
    Figure("peak memory", _archive),
    Figure("queue, generator replaced, 256x256 inline, broker on the same machine", _queue),
    Figure("queue with generator against `convert`", _queue_share),
)


def fill(text: str, documents: Mapping[str, Results]) -> str:
    """Return the README with its tables made anew; unchanged where no machine has been measured."""
    if not documents:
        return text
    tables = {"headline": _table(HEADLINES, documents), "numbers": _table(FIGURES, documents)}
    for name, table in tables.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if text.count(start) != 1 or text.count(end) != 1:
            raise ValueError(f"README.md must have one {start.strip()} and one {end}")
        before, rest = text.split(start)
        text = before + start + table + end + rest.split(end)[1]
    return text


def _table(figures: Sequence[Figure], documents: Mapping[str, Results]) -> str:
    machines = list(documents.values())
    rows = [["", *(_name(document["machine"]) for document in machines)], ["---"] * (1 + len(machines))]
    for figure in figures:
        values = [_value(figure, document["runs"]) for document in machines]
        if any(values):
            rows.append([figure.what, *(value or "not measured" for value in values)])
    if not any(document["machine"]["gpu"] for document in machines):
        rows.append(["NVIDIA GPU", *["**not measured yet**"] * len(machines)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _value(figure: Figure, runs: Runs) -> str:
    try:
        return figure.text(runs)
    except KeyError:
        return ""


def _name(machine: Mapping[str, Any]) -> str:
    return str(machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores")


def write(documents: Mapping[str, Results]) -> None:
    """Fill the tables of README.md."""
    README.write_text(fill(README.read_text(), documents))
