"""One self-contained HTML page about an archive: photos before and after, failures, remarks, speed, settings.

    gallery = Gallery(keep=24)                            or keep=None for every photo
    if gallery.wants(name): gallery.show(name, before_HWC, after_HWC)
    write_report(path, ReportData(..., comparisons=gallery))

The page needs no server and loads nothing. Thumbnails are inside it as inert text, and become images only while they
are near the window, so that a page with ten thousand photos still opens on a phone.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from engine.archive.report.gallery import Comparison
from engine.system.files import atomic_file

PLOT_BINS = 60
FOLDED = ("architecture", "training", "training_size", "scores")
"""Fields of a model's card that the page shows only when they are unfolded."""
VISIBLE = {
    **{code: 0x2400 + code for code in range(0x20)},
    0x7F: 0x2421,
    **dict.fromkeys([*range(0x80, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD),
}
"""What `shown` prints for characters that a page must not contain, or that would disguise a file name."""


@dataclass(frozen=True, kw_only=True)
class Remark:
    """Why a file was not converted, or what the user should know of one that was."""

    path: str
    stage: str = ""
    """Stage in which it failed, such as `decode`; empty for a remark."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where the full-size files of a photo are, as URLs."""

    result: str
    original: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunFigures:
    """The numbers of an archive and of the run that wrote the page."""

    source: str
    destination: str
    finished: str
    """End of the run, as text."""
    translated: int
    """Photos with a result."""
    in_this_run: int
    """Photos that this run translated."""
    failed: int
    waiting: int = 0
    """Photos that a stopped run has not reached."""
    elapsed_s: float
    megapixels: float = 0.0
    """Of the photos that this run translated, together."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that the page shows."""

    title: str
    summary: RunFigures
    comparisons: Collection[Comparison] = ()
    """In the order of the page; read once, one at a time."""
    links: Mapping[str, Links] = field(default_factory=dict)
    """By the name of the photo."""
    unreadable: int = 0
    """Photos that should be shown and whose files cannot be read any more."""
    failures: Sequence[Remark] = ()
    remarks: Sequence[Remark] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Number of files and folders that are no inputs, by kind."""
    rate: Sequence[tuple[float, int]] = ()
    """(seconds since the start, images done until then), in order of time."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)


def write_report(path: Path, data: ReportData) -> None:
    """Write the page to `path`, in an existing folder; it appears under its name only when it is whole."""
    with atomic_file(path, within=path.parent) as file:
        for part in template().generate(page_fields(data)):
            file.write(part.encode("utf-8"))


def page_fields(data: ReportData) -> dict[str, Any]:
    """Return what the template prints."""
    return {
        "title": data.title,
        "summary": data.summary,
        "figures": figures(data.summary, len(data.remarks)),
        "gallery_note": gallery_note(len(data.comparisons), data.summary.translated, data.unreadable),
        "row_px": row_height_px(len(data.comparisons)),
        "comparisons": data.comparisons,
        "links": data.links,
        "plot": plot(data.rate),
        "failures": data.failures,
        "remarks": data.remarks,
        "left_out": data.left_out,
        "settings": flat(data.settings),
        "card": flat({name: value for name, value in data.card.items() if name not in FOLDED}),
        "internals": flat({name: value for name, value in data.card.items() if name in FOLDED}),
    }


def template() -> jinja2.Template:
    """Load the page's template, which escapes whatever is printed into it."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"shown": shown, "as_json": as_json}
    return environment.from_string(resources.files("engine.archive.report").joinpath("page.html").read_text("utf-8"))


# Printing.


def shown(value: object) -> str:
    """Return text that prints as one line whatever a file name contains.

    Control characters become their pictures, characters that turn the direction of text become U+FFFD, and
    bytes that are no text become escapes.
    """
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8").translate(VISIBLE)


def as_json(photo: Comparison, links: Mapping[str, Links]) -> Markup:
    """Return the data block of one photo, its name first, with nothing in it that could end a script element."""
    to = links.get(photo.name)
    block = json.dumps(
        {
            "name": shown(photo.name),
            "width": photo.width,
            "height": photo.height,
            "result": to and to.result,
            "original": to and to.original,
            "before": base64.b64encode(photo.before).decode("ascii"),
            "after": base64.b64encode(photo.after).decode("ascii"),
        }
    )
    for character in "<>&":
        block = block.replace(character, f"\\u{ord(character):04x}")
    return Markup(block)  # escaped for a script element, where entities do not work


def figures(summary: RunFigures, remarks: int) -> list[tuple[str, str, str, str]]:
    """Return label, number, unit and link of each headline number."""
    rate = summary.in_this_run / summary.elapsed_s if summary.elapsed_s > 0 else 0.0
    rows = [("Translated", f"{summary.translated:,}", "", "")]
    rows.append(("Failed", f"{summary.failed:,}", "", "#failures" if summary.failed else ""))
    if remarks:
        rows.append(("Remarks", f"{remarks:,}", "", "#remarks"))
    if summary.waiting:
        rows.append(("Not reached", f"{summary.waiting:,}", "", ""))
    if summary.in_this_run != summary.translated:
        rows.append(("In this run", f"{summary.in_this_run:,}", "", ""))
    if not summary.in_this_run:
        return rows
    rows.append(("Time", duration(summary.elapsed_s), "", ""))
    rows.append(("Speed", three_digits(rate), "images/s", ""))
    if summary.megapixels:
        rows.append(("Pixels", three_digits(summary.megapixels), "MP", ""))
    return rows


def gallery_note(shown_photos: int, translated: int, unreadable: int = 0) -> str:
    """Return how many photos the page shows and how to compare them."""
    if translated == 0:
        return "No photo was translated."
    missing = f" {unreadable:,} more cannot be read any more." if unreadable else ""
    if shown_photos == 0:
        return f"No photo is shown.{missing}"
    how = "Drag across a photo, or select it and use the arrow keys."
    if shown_photos >= translated:
        return how
    return f"{shown_photos:,} of {translated:,} photos.{missing} {how}"


def row_height_px(count: int) -> int:
    """Return the height of the gallery's rows: large for a sample, closer together for many."""
    return 260 if count <= 100 else 210


def flat(fields: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return names and values to print, nested mappings as `outer inner`; empty values are left out."""
    rows: list[tuple[str, str]] = []
    for name, value in fields.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            rows += flat(value, f"{label} ")
        elif isinstance(value, (list, tuple)):
            rows += [(label, ", ".join(str(item) for item in value))] if value else []
        elif isinstance(value, bool):
            rows.append((label, "yes" if value else "no"))
        elif value not in (None, ""):
            rows.append((label, str(value)))
    return rows


def duration(seconds: float) -> str:
    """Return a duration in the two units that matter."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def three_digits(value: float) -> str:
    """Return a number with about three significant digits, without an exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


# The plot.


def plot(rate: Sequence[tuple[float, int]]) -> dict[str, Any] | None:
    """Return the paths, ticks and words of the plot in a box of 100 x 100, None when the run was too short.

    The run is cut into equal spans of time; each shows the images that became done in it.
    """
    if len(rate) < 3 or rate[-1][0] - rate[0][0] < 1.0:
        return None
    seconds, done = (np.asarray(column, float) for column in zip(*rate, strict=True))
    edges = np.linspace(seconds[0], seconds[-1], min(PLOT_BINS, len(rate) - 1) + 1)
    speeds = np.diff(np.interp(edges, seconds, done)) / np.diff(edges)
    top, y_values = nice_scale(float(speeds.max(initial=0.0)))
    xs = (edges[:-1] + edges[1:]) / 2
    xs = 100 * (xs - edges[0]) / (edges[-1] - edges[0])
    ys = 100 - 100 * speeds / top
    xs, ys = np.concatenate([[0], xs, [100]]), np.concatenate([ys[:1], ys, ys[-1:]])
    line = "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in zip(xs, ys, strict=True))
    mean = float((done[-1] - done[0]) / (seconds[-1] - seconds[0]))
    return {
        "line": line,
        "area": f"{line}L100 100L0 100Z",
        "mean": three_digits(mean),
        "mean_at": f"{100 - 100 * mean / top:.2f}",
        "y_ticks": [{"at": round(100 - 100 * value / top, 2), "label": f"{value:g}"} for value in y_values],
        "x_ticks": time_ticks(float(seconds[-1])),
        "description": f"Images per second over the run: mean {three_digits(mean)}, "
        f"lowest {three_digits(float(speeds.min()))}, highest {three_digits(float(speeds.max()))}.",
    }


def nice_scale(largest: float) -> tuple[float, list[float]]:
    """Return the top of an axis from 0 that holds `largest`, and its ticks: 1, 2 or 5 times a power of ten."""
    largest = largest or 1.0
    step = 10.0 ** math.floor(math.log10(largest / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if step * factor * 4.2 >= largest)
    ticks = [step * number for number in range(math.ceil(largest / step - 1e-9) + 1)]
    return ticks[-1], [float(f"{tick:.6g}") for tick in ticks]


def time_ticks(end_s: float) -> list[dict[str, Any]]:
    """Return the start, the middle and the end of the run."""
    return [{"at": at, "label": "0 s" if at == 0 else duration(end_s * at / 100)} for at in (0, 50, 100)]
