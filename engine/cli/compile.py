"""`solstice compile`: build, check and time a model's backends ahead of the first run."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_args

import click
from rich.console import Console
from rich.table import Table

from engine.config import BackendName, GenerateConfig
from engine.model.weights import load_generator
from engine.runtime.rates import Row, measure_backends

_BACKENDS = [name for name in get_args(BackendName) if name != "auto"]


class SidesType(click.ParamType[tuple[int, ...]]):
    """`256` or `256,512,1024`."""

    name = "sides"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Parse a list of sides in pixels, multiples of 4 from 16."""
        if isinstance(value, tuple):
            return value
        sides = [int(word) for word in str(value).split(",") if word.strip().isdecimal()]
        if len(sides) != str(value).count(",") + 1 or any(side < 16 or side % 4 for side in sides):
            self.fail(f"sizes are multiples of 4 from 16, with commas between them, got {value!r}", param, ctx)
        return tuple(sides)


@click.command("compile")
@click.argument("model", metavar="NAME|FILE")
@click.option("--device", default=GenerateConfig.device, show_default=True, help="cpu, cuda or cuda:N.")
@click.option("--backend", "backends", multiple=True, type=click.Choice(_BACKENDS), help="Only this one; may repeat.")
@click.option(
    "--sizes",
    type=SidesType(),
    default=",".join(map(str, GenerateConfig.sides)),
    show_default=True,
    metavar="N[,N…]",
    help="Sides of the images to tune for and to time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON on standard output.")
def compile_model(model: str, device: str, backends: tuple[str, ...], sizes: tuple[int, ...], as_json: bool) -> None:
    """Compile MODEL for this machine, compare it with the fp32 module, and time every backend that is there.

    The result is kept in the cache folder; from then on `convert` and `stream` start without compiling and take the
    backend that was measured fastest.
    """
    config = GenerateConfig(device=device, sides=sizes)
    rows = list(measure_backends(load_generator(model), config, backends))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows]))
    else:
        Console().print(table_of(rows))


def table_of(rows: list[Row]) -> Table:
    """Lay the rows out for reading."""
    table = Table("backend", "size", "batch", "images/s", "agreement with fp32")
    for row in rows:
        rate = "none" if row.images_per_s is None else f"{row.images_per_s:.1f}"
        table.add_row(f"{row.backend} {row.precision}", str(row.side), str(row.batch), rate, row.note)
    return table
