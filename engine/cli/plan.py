"""`solstice plan`: how many workers, partitions and replicas a daily load needs."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from engine.bench.config import QUICK, BenchConfig
from engine.bench.document import load as load_document
from engine.bench.plan import Load, Plan, plan
from engine.cli.options import INPUT, OUTPUT, SIZE, SPEED, SizeType, command
from engine.options import Size


@command("plan")
@INPUT.option("--images-per-day", type=click.IntRange(1), required=True, help="Images to translate in a day.")
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
    images_per_day: int,
    size: Size,
    bench_file: Path | None,
    peak_factor: float,
    utilisation: float,
    catch_up_s: float,
    as_json: bool,
) -> None:
    """Size a deployment: workers, partitions, replicas and the lag to scale at.

    docs/sizing.md works an example through.
    """
    load = Load(
        images_per_day=images_per_day,
        size=size,
        peak_factor=peak_factor,
        utilisation=utilisation,
        catch_up_s=catch_up_s,
    )
    if bench_file is not None:
        document = load_document(bench_file)
    else:
        from engine.bench.run import measure  # imports torch, which a plan from a file does not need

        document = measure(BenchConfig(effort=QUICK), lambda what: click.echo(f"Measuring {what} …", err=True))
    made = plan(load, document)
    if as_json:
        click.echo(json.dumps(made.to_json()))
        return
    Console().print(_table(made))
    if not made.trusted:
        click.echo("The measurement was too noisy to trust; measure again on a quiet machine.", err=True)
    click.echo("Values for deploy/helm/solstice, as JSON, which Helm reads as well as YAML:")
    click.echo(json.dumps(made.values, indent=2))


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
