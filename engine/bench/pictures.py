"""Pictures of one document: stages against their ceilings, rate by batch, rate by size.

Needs matplotlib, which the extra `bench` installs.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from engine.bench.document import Document
from engine.bench.rows import workload_title
from engine.bench.table import number

_INK, _SOFT, _ACCENT, _CEILING = "#22303c", "#9aa7b1", "#2f7d6b", "#d9822b"
_STAGES_HIGH = 0.42  # inches of a bar
_DPI = 120


def can_draw() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(document: Document, folder: Path) -> list[Path]:
    """Write `stages.png`, `batch.png` and `size.png` into `folder`, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"stages": _stages(document), "batch": _batch(document), "size": _size(document)}
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=_DPI, metadata={"Software": None})
    return paths


def _figure(rows: int = 1, width: float = 8.0, height: float = 4.2, ratios: list[int] | None = None) -> Any:
    from matplotlib.figure import Figure  # without pyplot: no window, nothing kept between calls

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False, height_ratios=ratios)[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=_INK, length=0)
    return figure, axes


def _title(document: Document) -> str:
    machine, settings = document["machine"], document["settings"]
    where = machine["gpu"] or f"{machine['cores']} cores of {machine['cpu']}"
    return f"{where}, {settings['model']}, {settings['backend']} {settings['precision']}"


def _stages(document: Document) -> Any:
    """Draw for each workload a bar per stage that has a ceiling and a mark for it, on a logarithmic axis."""
    workloads = document["workloads"]
    stages = [[stage for stage in one["stages"] if stage["ceiling_images_per_s"]] for one in workloads]
    counts = [len(some) + 1 for some in stages]
    figure, axes = _figure(len(workloads), height=1.2 + _STAGES_HIGH * (sum(counts) + 2 * len(counts)), ratios=counts)
    figure.suptitle(_title(document), color=_INK, fontsize=10)
    for axis, workload, some in zip(axes, workloads, stages, strict=True):
        run = workload["end_to_end"]
        bars = [(stage["stage"], stage["images_per_s"], stage["ceiling_images_per_s"]) for stage in some]
        bars.append(("files to files", run["images_per_s"], run["ceiling_images_per_s"]))
        positions = range(len(bars))
        rates = [rate["median"] for _, rate, _ in bars]
        errors = [[rate["median"] - rate["min"] for _, rate, _ in bars], [r["max"] - r["median"] for _, r, _ in bars]]
        colours = [_SOFT] * (len(bars) - 1) + [_ACCENT]
        axis.barh(positions, rates, color=colours, height=0.62, xerr=errors, ecolor=_INK, error_kw={"lw": 0.8})
        for position, (_, rate, ceiling) in enumerate(bars):
            end = max(rate["max"], ceiling["median"] if ceiling else 0)
            axis.annotate(
                f"{number(rate['median'])}" + (f" of {number(ceiling['median'])}" if ceiling else ""),
                (end, position), xytext=(8, 0), textcoords="offset points", va="center", fontsize=8, color=_INK,
            )  # fmt: skip
            if ceiling is not None:
                axis.plot([ceiling["median"]] * 2, [position - 0.38, position + 0.38], color=_CEILING, lw=2.5)
        axis.set_yticks(positions, [name for name, *_ in bars])
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: number(value))
        left, right = min(rates) / 4, axis.get_xlim()[1]
        axis.set_xlim(left, right * (right / left) ** 0.22)  # room for the numbers
        axis.set_title(workload_title(workload), loc="left", fontsize=10, color=_INK)
    axes[-1].set_xlabel("images/s; the orange mark is the ceiling of the stage", color=_INK)
    return figure


def _batch(document: Document) -> Any:
    """Draw the rate by batch size, with the ceiling and the published way as lines."""
    generator = document["generator"]
    figure, (axis,) = _figure()
    measured = generator["by_batch"]
    _line(axis, [one["batch"] for one in measured], [one["images_per_s"] for one in measured], "Solstice")
    for name, label, colour in (
        ("ceiling", "ceiling: the trunk's convolution", _CEILING),
        ("reference", "eager fp32, batch 1", _SOFT),
    ):
        axis.axhline(generator[f"{name}_images_per_s"]["median"], color=colour, lw=1.5, label=label)
    axis.set_xscale("log", base=2)
    axis.set_xticks([one["batch"] for one in measured], [str(one["batch"]) for one in measured])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("batch, images of 256x256", color=_INK)
    axis.set_ylabel("images/s", color=_INK)
    axis.set_title(_title(document), loc="left", fontsize=10, color=_INK)
    axis.legend(frameon=False, loc="best")
    return figure


def _size(document: Document) -> Any:
    """Draw megapixels per second by the side of the image, with the ceiling as a line."""
    generator = document["generator"]
    figure, (axis,) = _figure()
    measured = generator["by_side"]
    _line(axis, [one["side"] for one in measured], [one["mp_per_s"] for one in measured], "Solstice")
    ceiling = generator["ceiling_images_per_s"]["median"] * 256**2 / 1e6
    axis.axhline(ceiling, color=_CEILING, lw=1.5, label="ceiling: the trunk's convolution")
    axis.set_xscale("log", base=2)
    axis.set_xticks([one["side"] for one in measured], [f"{one['side']}" for one in measured])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("side of the image in pixels", color=_INK)
    axis.set_ylabel("MP/s", color=_INK)
    axis.set_title(_title(document), loc="left", fontsize=10, color=_INK)
    axis.legend(frameon=False, loc="best")
    return figure


def _line(axis: Any, x: list[float], measured: list[dict[str, Any]], label: str) -> None:
    medians = [one["median"] for one in measured]
    axis.plot(x, medians, "o-", color=_ACCENT, label=label)
    axis.fill_between(
        x, [one["min"] for one in measured], [one["max"] for one in measured], color=_ACCENT, alpha=0.2, lw=0
    )
