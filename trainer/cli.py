"""`solstice-train`: arguments to configuration to one function each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import click

from engine.cli.main import run
from engine.config import BackendName, GenerateConfig
from engine.model.card import UPSAMPLINGS, Architecture
from trainer.checkpoints import load_checkpoint
from trainer.config import (
    DataConfig,
    DiscriminatorNorm,
    LossConfig,
    MachineConfig,
    NetworkConfig,
    RunConfig,
    ScheduleConfig,
)
from trainer.export import Labels
from trainer.export import export as export_pair
from trainer.scores.fid import Fid

STOPPED = 130
"""Exit code of a run that a signal stopped and `resume` can go on with."""

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)


def main() -> None:
    """Run the command line; an expected failure is one sentence and exit code 2."""
    run(commands)


@click.group()
def commands() -> None:
    """Train, judge and export a pair of generators."""


def machine_options(command: Command) -> Command:
    """Options that a resumed run may change freely."""
    defaults = MachineConfig()
    for option in (
        click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default=defaults.device),
        click.option("--precision", type=click.Choice(["bf16", "fp32"]), default=defaults.precision),
        click.option("--compile/--no-compile", default=defaults.compile, help="Use torch.compile."),
    ):
        command = option(command)
    return command


@commands.command()
@click.argument("data", type=FOLDER, required=False)
@click.option("--a", "train_a", type=FOLDER, help="Photos of domain A, instead of DATA/trainA.")
@click.option("--b", "train_b", type=FOLDER, help="Photos of domain B, instead of DATA/trainB.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the run.")
@click.option("--epochs", type=float, default=ScheduleConfig.epochs, show_default=True)
@click.option("--decay-epochs", type=float, help="Last epochs in which the rate falls to zero [half].")
@click.option("--batch", type=int, default=ScheduleConfig.batch, show_default=True)
@click.option("--rate", type=float, default=ScheduleConfig.rate, show_default=True)
@click.option("--average", type=float, default=ScheduleConfig.average, help="Export a moving average, as 0.999 [none].")
@click.option("--seed", type=int, default=ScheduleConfig.seed, show_default=True)
@click.option("--load", type=int, default=DataConfig.load, show_default=True)
@click.option("--crop", type=int, default=DataConfig.crop, show_default=True)
@click.option("--flip/--no-flip", default=DataConfig.flip, show_default=True)
@click.option("--cycle", type=float, default=LossConfig.cycle, show_default=True, help="lambda.")
@click.option("--identity", type=float, default=LossConfig.identity, show_default=True, help="Times lambda.")
@click.option("--ngf", type=int, default=Architecture.ngf, show_default=True)
@click.option("--blocks", type=int, default=Architecture.blocks, show_default=True)
@click.option("--ndf", type=int, default=NetworkConfig.ndf, show_default=True)
@click.option(
    "--discriminator-norm",
    type=click.Choice(get_args(DiscriminatorNorm)),
    default=NetworkConfig.discriminator_norm,
    show_default=True,
)
@click.option("--upsample", type=click.Choice(UPSAMPLINGS), default=Architecture.upsample, show_default=True)
@click.option("--learn-residual", is_flag=True, help="Learn what to add to a photo: its brightness and detail stay.")
@machine_options
def fit(data: Path | None, out: Path, **options: Any) -> None:
    """Train a pair on DATA (trainA/ trainB/, and testA/ testB/ that are kept out of training)."""
    from trainer import loop

    _exit_unless(finished=loop.fit(run_config(data, **options), out))


@commands.command()
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option("--epochs", type=float, help="New length of the whole run.")
@click.option("--decay-epochs", type=float, help="New length of the rate's fall.")
@click.option("--rate", type=float, help="New learning rate.")
@click.option("--average", type=float, help="New decay of the average that is exported.")
@click.option("--load", type=int, help="New size to which photos are brought before they are cropped.")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), help="New precision.")
def resume(folder: Path, load: int | None, precision: Literal["bf16", "fp32"] | None, **changes: float | None) -> None:
    """Go on with a run that was stopped, or make it longer or shorter."""
    from trainer import loop

    config = load_checkpoint(folder).config
    schedule = replace(config.schedule, **{name: new for name, new in changes.items() if new is not None})  # type: ignore[arg-type]
    machine = replace(config.machine, precision=precision or config.machine.precision)
    data = replace(config.data, load=load or config.data.load)
    _exit_unless(finished=loop.resume(folder, replace(config, data=data, schedule=schedule, machine=machine)))


@commands.command()
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option("--to", type=FOLDER, required=True, help="Folder of the model files.")
@click.option("--domain-a", default=Labels.domain_a, show_default=True, help="What photos of A show.")
@click.option("--domain-b", default=Labels.domain_b, show_default=True, help="What photos of B show.")
@click.option("--data", default=Labels.data, help="For the card: what the photos are.")
@click.option("--licence", default=Labels.licence, help="For the card: licence of the weights.")
@click.option("--notes", default=Labels.notes, help="For the card: what works and what does not.")
def export(folder: Path, to: Path, **labels: str) -> None:
    """Write the two generators of RUN as model files with cards."""
    for path in export_pair(folder, to, Labels(**labels)):
        click.echo(path)


@commands.command()
@click.argument("target", metavar="RUN|MODEL", type=click.Path(path_type=Path, exists=True))
@click.argument("data", type=FOLDER)
@click.option("--back", type=click.Path(path_type=Path, dir_okay=False), help="Model of the way back, beside MODEL.")
@click.option("--reverse", is_flag=True, help="MODEL translates B to A.")
@click.option("--limit", type=int, help="Test photos of each domain at most.")
@click.option("--backend", type=click.Choice(get_args(BackendName)), default=GenerateConfig.backend, show_default=True)
@click.option("--fid", is_flag=True, help="FID and KID too; needs the extra `fid`, downloads weights.")
@click.option("--fid-weights", type=click.Path(path_type=Path, exists=True), help="File of the weights for --fid.")
def evaluate(target: Path, data: Path, back: Path | None, reverse: bool, limit: int | None, **options: Any) -> None:
    """Score a run, or a model file, on the test photos of DATA (testA/ testB/; trainA/ trainB/ for the classifier)."""
    from trainer import scoring

    config = GenerateConfig(backend=options["backend"])
    fid = Fid(options["fid_weights"]) if options["fid"] or options["fid_weights"] else None
    scores = scoring.score(target, data, back=back, reverse=reverse, limit=limit, config=config, fid=fid)
    click.echo(json.dumps(scores, indent=2))


@commands.command()
@click.argument("there", metavar="MODEL", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("photos", type=click.Path(path_type=Path, exists=True, dir_okay=False), nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="PNG or JPEG.")
@click.option("--side", type=int, default=256, show_default=True, help="Short side in pixels.")
def sheet(there: Path, photos: tuple[Path, ...], out: Path, side: int) -> None:
    """Show PHOTOS above their translations by MODEL."""
    from trainer import scoring

    scoring.before_after(there, photos, out, side=side)


def run_config(data: Path | None, train_a: Path | None, train_b: Path | None, **options: Any) -> RunConfig:
    """Sort the options of `fit` into the parts of a run's configuration."""
    if data is None and (train_a is None or train_b is None):
        raise click.UsageError("Give DATA, or both --a and --b.")
    held_out = () if data is None else tuple(path for path in (data / "testA", data / "testB") if path.is_dir())

    def pick(*names: str) -> dict[str, Any]:
        return {name: options[name] for name in names}

    return RunConfig(
        data=DataConfig(
            train_a=(train_a or cast(Path, data) / "trainA").absolute(),
            train_b=(train_b or cast(Path, data) / "trainB").absolute(),
            held_out=tuple(path.absolute() for path in held_out),
            **pick("load", "crop", "flip"),
        ),
        networks=NetworkConfig(
            architecture=Architecture(**pick("ngf", "blocks", "upsample", "learn_residual")),
            **pick("ndf", "discriminator_norm"),
        ),
        losses=LossConfig(**pick("cycle", "identity")),
        schedule=ScheduleConfig(**pick("epochs", "decay_epochs", "batch", "rate", "average", "seed")),
        machine=MachineConfig(**pick("device", "precision", "compile")),
    )


def _exit_unless(*, finished: bool) -> None:
    if not finished:
        click.echo("Stopped before the end; `solstice-train resume` goes on.", err=True)
        raise click.exceptions.Exit(STOPPED)
