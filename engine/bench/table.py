"""A document, and the comparison of two, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine.bench.compare import changes, differences
from engine.bench.document import Document
from engine.bench.rows import rows_of, workload_title
from engine.bench.timing import Spread
from engine.system.terminal import visible

_STYLES = {"better": "green", "worse": "red", "same": "", "noisy": "yellow"}
_WORDS = {"better": "better", "worse": "worse", "same": "within noise", "noisy": "too noisy to tell"}
NOISY_MARK = " ~"


def summary(document: Document) -> RenderableType:
    """Lay out one run: machine, ceilings, generator, stages and workloads, noise."""
    parts: list[RenderableType] = [_heading(document), _ceilings(document), _generator(document)]
    parts += [_workload(workload) for workload in document["workloads"]]
    if document["queue"] is not None:
        parts.append(_queue(document))
    return Group(*parts, _noise(document))


def comparison(before: Document, after: Document, names: tuple[str, str]) -> RenderableType:
    """Lay out what two documents have in common, with the changes beyond noise marked."""
    differing = Table("differs", *names, title_justify="left")
    for name, one, other in differences(before, after):
        differing.add_row(name, _plain(one), _plain(other))
    table = Table("", "measurement", "unit", *names, "factor", "")
    group = ""
    for change in changes(before, after):
        row, verdict = change.before, change.verdict
        table.add_row(
            row.group if row.group != group else "",
            row.name,
            row.unit,
            in_words(row.spread),
            in_words(change.after.spread),
            f"{change.factor:.2f}",
            Text(_WORDS[verdict], style=_STYLES[verdict]),
        )
        group = row.group
    parts: list[RenderableType] = [differing, table]
    for name, document in zip(names, (before, after), strict=True):
        if not document["noise"]["trusted"]:
            parts.append(Text(f"{name}: {_distrust(document)}", style="yellow"))
    return Group(*parts)


def number(value: float) -> str:
    """Write three significant digits, or all digits of a large number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def in_words(spread: Spread) -> str:
    """Write the median and the extremes, with a mark where they are too far apart to trust."""
    if len(spread.values) == 1:
        return number(spread.median)
    extremes = f"{number(min(spread.values))} to {number(max(spread.values))}"
    return f"{number(spread.median)} ({extremes}){NOISY_MARK if spread.noisy else ''}"


def percent(spread: Spread) -> str:
    """Write the median of shares."""
    return f"{spread.median:.0%}{NOISY_MARK if spread.noisy else ''}"


def _heading(document: Document) -> Text:
    machine, settings = document["machine"], document["settings"]
    network = settings["network"]
    where = machine["gpu"] or f"{machine['cores']} cores of {machine['cpu']}"
    return Text(
        f"{where}; {visible(settings['model'])} (ngf {network['ngf']}), {settings['backend']} {settings['precision']}, "
        f"batch {settings['batch']}; {settings['rounds']} rounds, photos: {settings['photos']}\n"
        f"Start: {start_in_words(document['start'])}"
    )


def start_in_words(start: dict[str, Any]) -> str:
    """Describe what was spent before the first measured image."""
    how = "compiling the generator" if start["compiled"] else "loading the backend"
    return f"{how} {start['backend_s']:.1f} s, first batch {start['first_batch_s']:.1f} s"


def _ceilings(document: Document) -> Table:
    table = Table("ceiling", "rate", "unit")
    for row in rows_of(document):
        if row.group == "ceilings":
            table.add_row(row.name, in_words(row.spread), row.unit)
    return table


def _generator(document: Document) -> Table:
    table = Table("generator", "images/s", "of its ceiling", "over eager fp32, batch 1")
    generator = document["generator"]
    ceiling, reference = (Spread.from_document(generator[f"{name}_images_per_s"]) for name in ("ceiling", "reference"))
    table.add_row("eager fp32, batch 1", in_words(reference), "", "1")
    for measured in generator["by_batch"]:
        rate = Spread.from_document(measured["images_per_s"])
        table.add_row(
            f"256x256, batch {measured['batch']}",
            in_words(rate),
            percent(rate.over(ceiling)),
            in_words(rate.over(reference)),
        )
    for measured in generator["by_side"]:
        side, rate = measured["side"], Spread.from_document(measured["images_per_s"])
        at_256 = side * side / 256**2
        share = percent(rate.scaled(at_256).over(ceiling))
        table.add_row(f"{side}x{side}, batch {measured['batch']}", in_words(rate), share, "")
    return table


def _workload(workload: dict[str, Any]) -> Table:
    table = Table(workload_title(workload), "images/s", "MP/s", "of its ceiling", "busy in the run")
    run = workload["end_to_end"]
    for stage in workload["stages"]:
        share = stage["share_of_ceiling"]
        use = run["stage_use"].get(stage["stage"])
        table.add_row(
            f"{stage['stage']} alone",
            in_words(Spread.from_document(stage["images_per_s"])),
            number(Spread.from_document(stage["mp_per_s"]).median),
            "" if share is None else f"{percent(Spread.from_document(share))} of {stage['ceiling']}",
            "" if use is None else f"{use:.0%}",
        )
    table.add_section()
    table.add_row(
        "files to files",
        in_words(Spread.from_document(run["images_per_s"])),
        number(Spread.from_document(run["mp_per_s"]).median),
        f"{percent(Spread.from_document(run['share_of_ceiling']))} of all",
        f"limited by {run['limited_by']}",
    )
    table.caption = _resources(run)
    table.caption_justify = "left"
    return table


def _resources(run: dict[str, Any]) -> str:
    parts = [f"processor {percent(Spread.from_document(run['cpu_use']))}"]
    if run["gpu_use"] is not None:
        parts.append(f"GPU {percent(Spread.from_document(run['gpu_use']))}")
    parts.append(f"peak memory {number(max(run['peak_bytes']['values']) / 1e6)} MB")
    if run["peak_gpu_bytes"] is not None:
        parts.append(f"GPU memory {number(max(run['peak_gpu_bytes']['values']) / 1e6)} MB")
    for meter, joules in run["joules_per_image"].items():
        parts.append(f"{in_words(Spread.from_document(joules))} J/image ({meter})")
    if not run["joules_per_image"]:
        parts.append("energy not readable here")
    return ", ".join(parts)


def _queue(document: Document) -> Table:
    table = Table("queue", "measured", "unit")
    for row in rows_of(document):
        if row.group == "queue":
            table.add_row(row.name, in_words(row.spread), row.unit)
    table.add_row("worker's processor time", number(document["queue"]["worker_cpu_ms_per_job"]), "ms/job")
    return table


def _noise(document: Document) -> Text:
    noise = document["noise"]
    others = "" if noise["other_cores"] is None else f"; other processes took {noise['other_cores']:.1f} cores"
    if noise["trusted"]:
        return Text(f"{noise['noisy_measurements']} of {noise['measurements']} measurements are noisy (~){others}.")
    return Text(_distrust(document), style="yellow")


def _distrust(document: Document) -> str:
    return f"Too noisy to trust: {' and '.join(document['noise']['reasons'])}."


def _plain(value: Any) -> str:
    return "none" if value is None else visible(str(value))
