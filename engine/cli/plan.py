"""`solstice plan`: how many workers, partitions and replicas a daily load needs."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from engine.bench.config import QUICK, BenchConfig
from engine.bench.document import Document
from engine.bench.document import load as load_document
from engine.bench.plan import Load, Plan, estimate_archive, plan, worker_rate
from engine.cli.options import INPUT, OUTPUT, SIZE, SPEED, SizeType, command
from engine.errors import SetupError
from engine.options import Size


@command("plan")
@INPUT.option("--images-per-day", type=click.IntRange(1), help="Images of a queue to translate each day.")
@INPUT.option("--archive", type=click.IntRange(1), metavar="N", help="Photos of an archive to translate once.")
@INPUT.option(
    "--days",
    type=click.FloatRange(0, min_open=True),
    default=7.0,
    help="With --archive, the days in which it shall be done.",
)
@SIZE.option("--size", type=SizeType(), required=True, metavar="N|WxH", help="Working size of the generator.")
@SPEED.option(
    "--bench",
    "bench_file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Measurement of a worker's machine, made by `solstice bench --json FILE`; without it this machine is "
    "measured, which takes two minutes.",
)
@SPEED.option(
    "--peak-factor",
    type=click.FloatRange(1),
    default=Load.peak_factor,
    help="Load of the busiest hour over the mean of the day.",
)
@SPEED.option(
    "--utilisation",
    type=click.FloatRange(0.05, 1),
    default=Load.utilisation,
    help="Share of the measured rate to plan with; the rest absorbs bursts and restarts.",
)
@SPEED.option(
    "--catch-up",
    "catch_up_s",
    type=click.FloatRange(1),
    default=Load.catch_up_s,
    help="Seconds in which one worker should work off its share of the lag.",
)
@OUTPUT.option("--json", "as_json", is_flag=True, help="Print the plan as one JSON object on standard output.")
def plan_deployment(
    images_per_day: int | None,
    archive: int | None,
    days: float,
    size: Size,
    bench_file: Path | None,
    peak_factor: float,
    utilisation: float,
    catch_up_s: float,
    as_json: bool,
) -> None:
    """Size a deployment for a queue, or a run over an archive.

    A queue: workers, partitions, replicas and the lag to scale at. An archive: hours, machines and requests.

    docs/scale.md has the arithmetic for archives of a million to a billion photos.
    """
    if (images_per_day is None) == (archive is None):
        raise SetupError("Name one of --images-per-day, for a queue, and --archive, for a run over photos.")
    if archive is not None:
        _print_estimate(archive, size, days, bench_file, as_json)
        return
    assert images_per_day is not None
    load = Load(
        images_per_day=images_per_day,
        size=size,
        peak_factor=peak_factor,
        utilisation=utilisation,
        catch_up_s=catch_up_s,
    )
    made = plan(load, _measurement(bench_file))
    if as_json:
        click.echo(json.dumps(made.to_json()))
        return
    Console().print(_table(made))
    if not made.trusted:
        click.echo("The measurement was too noisy to trust; measure again on a quiet machine.", err=True)
    click.echo("Values for deploy/helm/solstice, as JSON, which Helm reads as well as YAML:")
    click.echo(json.dumps(made.values, indent=2))


def _measurement(file: Path | None) -> Document:
    """Return the measurement in `file`, or one of this machine."""
    if file is not None:
        return load_document(file)
    from engine.bench.run import measure  # imports torch, which a plan from a file does not need

    return measure(BenchConfig(effort=QUICK), lambda what: click.echo(f"Measuring {what} …", err=True))


def _print_estimate(images: int, size: Size, days: float, bench_file: Path | None, as_json: bool) -> None:
    if size.mode not in ("short", "exact"):
        raise SetupError(f"--size {size}: a plan needs a side or WIDTHxHEIGHT, since native sizes vary by photo.")
    estimate = estimate_archive(images, worker_rate(_measurement(bench_file), size.width * size.height), days)
    if as_json:
        click.echo(json.dumps(estimate.to_json()))
        return
    table = Table("quantity", "value")
    for name, value in (
        ("rate of one machine", f"{estimate.images_per_s_per_machine:,.1f} images/s"),
        ("machine hours", f"{estimate.machine_hours:,.0f}"),
        (f"machines for {days:g} days", f"{estimate.machines:,}"),
        ("requests to the object store", f"{estimate.requests:,}"),
        ("manifest", f"{estimate.manifest_bytes / 1e9:,.1f} GB"),
        ("memory to plan it as a whole", f"{estimate.planning_bytes / 1e9:,.1f} GB"),
    ):
        table.add_row(name, value)
    Console().print(table)


def _table(made: Plan) -> Table:
    table = Table("quantity", "value")
    for name, value in (
        ("one worker", made.machine),
        ("rate of one worker", f"{made.images_per_s_per_worker:,.1f} images/s"),
        ("mean load", f"{made.mean_images_per_s:,.1f} images/s"),
        ("peak load", f"{made.peak_images_per_s:,.1f} images/s"),
        ("workers at the mean", f"{made.workers_at_mean:,}"),
        ("workers at the peak", f"{made.workers_at_peak:,}"),
        ("partitions of the jobs topic", f"{made.partitions:,}"),
        ("lag threshold per worker", f"{made.lag_threshold:,} jobs"),
        ("memory per worker", f"{made.memory_bytes_per_worker / 2**30:.1f} GiB"),
    ):
        table.add_row(name, value)
    return table
