"""`solstice compile`: compile, check and time a model's backends before the first run."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, get_args

import click
from rich.console import Console
from rich.table import Table

from engine.cli.options import MONITORING, SPEED, command
from engine.config import BackendName, GenerateConfig

if TYPE_CHECKING:
    from engine.runtime.rates import BackendRate

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
            self.fail(f"sizes must be multiples of 4, at least 16, separated by commas, got {value!r}", param, ctx)
        return tuple(sides)


@command("compile")
@click.argument("model", metavar="NAME|FILE")
@SPEED.option(
    "--device",
    default=GenerateConfig.device,
    metavar="DEVICE",
    help="Device to compile for: cpu, cuda or cuda:N; auto is a GPU if there is one.",
)
@SPEED.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(_BACKENDS),
    help="Only this backend; repeat for several. By default all that this machine can run.",
)
@SPEED.option(
    "--sizes",
    type=SidesType(),
    default=",".join(map(str, GenerateConfig.sides)),
    metavar="N[,N…]",
    help="Sides in pixels of the images to tune for and to time.",
)
@SPEED.option(
    "--batch",
    type=click.IntRange(1, 1024),
    default=GenerateConfig.tuned_batch,
    help="Images of 256x256 in the batches to tune for on a GPU, or as many pixels of a larger size.",
)
@MONITORING.option("--json", "as_json", is_flag=True, help="Print the table as JSON on standard output.")
def compile_model(
    model: str, device: str, backends: tuple[str, ...], sizes: tuple[int, ...], batch: int, as_json: bool
) -> None:
    """Compile a model for this machine, check it and time every backend.

    Each compiled package is compared with the fp32 module and kept in the cache folder. Later runs of `convert` and
    `stream` start without compiling and use the backend that was fastest.
    """
    from engine.model.weights import load_generator
    from engine.runtime.rates import measure_backends

    config = GenerateConfig(device=device, sides=sizes, tuned_batch=batch)
    rows = list(measure_backends(load_generator(model), config, backends))
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(row) for row in rows]))
    else:
        Console().print(table_of(rows))


def table_of(rows: list[BackendRate]) -> Table:
    """Return the rows as a table."""
    table = Table("backend", "size", "batch", "images/s", "agreement with fp32")
    for row in rows:
        rate = "none" if row.images_per_s is None else f"{row.images_per_s:.1f}"
        table.add_row(f"{row.backend} {row.precision}", str(row.side), str(row.batch), rate, row.note)
    return table
