"""`solstice bench`: measure this machine, or compare two measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import click
from rich.console import Console

from engine.bench.config import DEFAULT_MODEL, DEFAULT_NGF, FULL, QUICK, BenchConfig
from engine.bench.document import load, save
from engine.bench.pictures import can_draw, draw
from engine.bench.table import comparison, summary
from engine.cli.options import INPUT, KAFKA, MODEL, OUTPUT, SPEED, command
from engine.cli.output import say
from engine.config import BackendName, GenerateConfig, PrecisionName
from engine.errors import SetupError
from engine.system.allocator import keep_freed_memory
from engine.system.extras import install_hint
from engine.system.terminal import visible

_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
_STANDARD_OUTPUT = Path("-")
_WIDTH = 120  # columns of the tables where the output is not a terminal


@command()
@MODEL.option("--model", default=DEFAULT_MODEL, metavar="NAME|FILE", help="Model to measure.")
@MODEL.option(
    "--ngf",
    type=click.IntRange(1, 512),
    help=f"Measure a network of this width with random weights instead of a model; {DEFAULT_NGF} is the published one.",
)
@INPUT.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="JPEGs from which the measured photos are made; by default the repository's samples, or made-up ones.",
)
@SPEED.option(
    "--device",
    default=GenerateConfig.device,
    metavar="DEVICE",
    help="Device to measure: cpu, cuda or cuda:N; auto is a GPU if there is one.",
)
@SPEED.option(
    "--backend",
    type=click.Choice(get_args(BackendName)),
    default=GenerateConfig.backend,
    help="Backend to measure; auto is the one that a large run would use.",
)
@SPEED.option(
    "--precision",
    type=click.Choice(get_args(PrecisionName)),
    default=GenerateConfig.precision,
    help="Floating-point type of the generator.",
)
@SPEED.option(
    "--quick",
    is_flag=True,
    help="Two minutes instead of ten: fewer rounds, and 0.8 instead of 12 megapixels at full size.",
)
@KAFKA.option("--stream", "brokers", metavar="H:P[,H:P…]", help="Also measure the queue at these Kafka brokers.")
@OUTPUT.option(
    "--json",
    "json_file",
    type=_FILE,
    metavar="FILE",
    help="Write the measurements to FILE as JSON; - prints them instead of the tables.",
)
@OUTPUT.option("--pictures", type=_FOLDER, metavar="FOLDER", help="Draw the measurements into FOLDER as PNG files.")
@OUTPUT.option(
    "--compare",
    nargs=2,
    type=_FILE,
    metavar="A.json B.json",
    help="Measure nothing; show what changed from A to B beyond noise.",
)
def bench(
    device: str,
    model: str,
    ngf: int | None,
    backend: BackendName,
    precision: PrecisionName,
    photos: Path | None,
    quick: bool,
    brokers: str | None,
    json_file: Path | None,
    pictures: Path | None,
    compare: tuple[Path, Path] | None,
) -> None:
    """Measure this machine: ceilings, each stage alone, and whole runs.

    Ceilings come first: arithmetic, memory and libjpeg-turbo, each alone. Then the generator by batch and size, the
    stages of the pipeline, and three workloads: thumbnails, phone photos with the defaults, and photos at full size.
    Everything that is compared is measured in turn, several times; the table shows the median and the extremes.
    """
    console = Console(width=None if Console().is_terminal else _WIDTH)
    if compare is not None:
        before, after = (load(path) for path in compare)
        console.print(comparison(before, after, (visible(compare[0].stem), visible(compare[1].stem))))
        return
    if pictures is not None and not can_draw():
        click.echo(f"No pictures will be drawn: {install_hint('bench')} adds matplotlib.", err=True)
        pictures = None
    if json_file is not None and not json_file.absolute().parent.is_dir():  # before minutes of measuring, not after
        raise SetupError(f"--json {json_file}: there is no folder {json_file.parent}.")
    from engine.bench.run import measure  # imports torch, which --compare does not need

    config = BenchConfig(
        model=model,
        ngf=ngf,
        generate=GenerateConfig(device=device, backend=backend, precision=precision),
        photos=photos,
        effort=QUICK if quick else FULL,
        brokers=brokers,
    )
    keep_freed_memory()  # as `solstice convert` does
    document = measure(config, lambda what: click.echo(f"Measuring {what} …", err=True))
    if json_file == _STANDARD_OUTPUT:
        click.echo(json.dumps(document))
    else:
        console.print(summary(document))
        if json_file is not None:
            save(document, json_file)
    if pictures is not None:
        for path in draw(document, pictures):
            say(f"Drew {path}.", err=True)
