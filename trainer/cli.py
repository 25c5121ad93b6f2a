"""The command line `solstice-train`: parse options and call one function per command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import click

from engine.cli.main import run
from engine.cli.output import say
from engine.config import BackendName, GenerateConfig
from engine.errors import SetupError
from engine.model.card import Architecture, find_model
from trainer.checkpoints import load_checkpoint
from trainer.config import (
    TRAINED_UPSAMPLINGS,
    DataConfig,
    DiscriminatorNorm,
    LossConfig,
    MachineConfig,
    NetworkConfig,
    RunConfig,
    ScheduleConfig,
)
from trainer.curate import CurateConfig
from trainer.export import Labels
from trainer.export import export as export_pair
from trainer.exported import architecture_of
from trainer.scores.fid import Fid

STOPPED = 130
"""Exit code of a run that a signal stopped and `resume` can continue."""

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)


def main() -> None:
    """Run the command line; an expected failure prints one sentence and exits with code 2."""
    run(
        commands,
        continue_with="run `solstice-train resume RUN`, or the same command again where there is no checkpoint,",
    )


@click.group()
def commands() -> None:
    """Curate photos, train a pair of generators, score and export it."""


def default(config: type, field: str, help: str, **kwargs: Any) -> dict[str, Any]:
    """Return the arguments of an option whose default is that of a configuration's field."""
    return {"default": getattr(config, field), "show_default": True, "help": help, **kwargs}


@commands.command()
@click.argument("data", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="New folder for links to the kept photos, and for the sheets.")
@click.option("--a-max-snow", **default(CurateConfig, "a_max_snow", "Photos of A show less snow than this share."))
@click.option("--a-min-green", **default(CurateConfig, "a_min_green", "Photos of A show more green than this share."))
@click.option("--b-min-snow", **default(CurateConfig, "b_min_snow", "Photos of B show more snow than this share."))
@click.option("--b-max-green", **default(CurateConfig, "b_max_green", "Photos of B show less green than this share."))
@click.option("--max-flat-edges", **default(CurateConfig, "max_flat_edges", "More flat edges are a frame or caption."))
def curate(data: Path, out: Path, **thresholds: Any) -> None:
    """Keep the photos of DATA that show their season: green for A (summer), snow for B (winter)."""
    from trainer.curate import curate as curate_seasons

    for split in curate_seasons(data, out, CurateConfig(**thresholds)):
        total = len(split.kept) + len(split.left_out) + len(split.unreadable)
        say(f"{split.name}: {len(split.kept)} of {total} photos kept")
        for reason in split.unreadable:
            say(f"Left out {reason}.", err=True)
    say(f"Look at {out}/*.jpg: kept photos above, photos left out below.")


def machine_options(command: Command) -> Command:
    """Options that a resumed run may change freely."""
    defaults = MachineConfig()
    for option in (
        click.option("--compile/--no-compile", default=defaults.compile, show_default=True, help="Use torch.compile."),
        click.option(
            "--precision",
            type=click.Choice(["bf16", "fp32"]),
            default=defaults.precision,
            show_default=True,
            help="Precision of the convolutions.",
        ),
        click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "cuda"]),
            default=defaults.device,
            show_default=True,
            help="Device to train on; auto uses a GPU if there is one.",
        ),
    ):
        command = option(command)
    return command


@commands.command()
@click.argument("data", type=FOLDER, required=False)
@click.option("--a", "train_a", type=FOLDER, help="Photos of domain A, instead of DATA/trainA.")
@click.option("--b", "train_b", type=FOLDER, help="Photos of domain B, instead of DATA/trainB.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the run.")
@click.option(
    "--start-from",
    metavar="GENERATOR[,BACK]",
    help="Start from exported generators, A to B and B to A, instead of random weights; sets the architecture.",
)
@click.option("--epochs", **default(ScheduleConfig, "epochs", "Length of the run.", type=float))
@click.option("--decay-epochs", type=float, help="Last epochs, over which the rate falls to zero.  [default: half]")
@click.option("--batch", **default(ScheduleConfig, "batch", "Pairs per step."))
@click.option("--rate", **default(ScheduleConfig, "rate", "Learning rate of Adam for one pair per step."))
@click.option("--average", **default(ScheduleConfig, "average", "Decay of the exported moving average, such as 0.999."))
@click.option("--seed", **default(ScheduleConfig, "seed", "Seed of weights, order, crops and flips."))
@click.option("--load", **default(DataConfig, "load", "Short side to which photos are resized."))
@click.option("--crop", **default(DataConfig, "crop", "Side of the random square crops."))
@click.option("--flip/--no-flip", **default(DataConfig, "flip", "Mirror half of the crops."))
@click.option("--cycle", **default(LossConfig, "cycle", "Weight of the cycle loss, lambda."))
@click.option("--identity", **default(LossConfig, "identity", "Weight of the identity loss, relative to lambda."))
@click.option("--ngf", **default(Architecture, "ngf", "Channels after a generator's first convolution."))
@click.option("--blocks", **default(Architecture, "blocks", "Residual blocks of a generator."))
@click.option("--ndf", **default(NetworkConfig, "ndf", "Channels after a discriminator's first convolution."))
@click.option(
    "--discriminator-norm",
    type=click.Choice(get_args(DiscriminatorNorm)),
    **default(NetworkConfig, "discriminator_norm", "Normalisation in the discriminators."),
)
@click.option(
    "--generator-norm",
    type=click.Choice(["instance", "stored"]),
    default="instance",
    show_default=True,
    help="Statistics in the generators: each image's own, or stored ones, measured once at the start.",
)
@click.option(
    "--upsample",
    type=click.Choice(TRAINED_UPSAMPLINGS),
    **default(Architecture, "upsample", "Up-sampling: transposed convolution, or resize and convolution."),
)
@click.option("--learn-residual", is_flag=True, help="Learn the difference from the photo instead of the photo.")
@machine_options
@click.pass_context
def fit(context: click.Context, /, data: Path | None, out: Path, **options: Any) -> None:
    """Train a pair of generators on DATA (trainA/ and trainB/; photos in testA/ and testB/ are not trained on)."""
    from trainer import loop

    _refuse_architecture_beside_start(context)
    _exit_unless(finished=loop.fit(run_config(data, **options), out), folder=out)


@commands.command()
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option("--epochs", type=float, help="New length of the whole run.")
@click.option("--decay-epochs", type=float, help="New number of last epochs over which the rate falls to zero.")
@click.option("--rate", type=float, help="New learning rate.")
@click.option("--average", type=float, help="New decay of the exported moving average.")
@click.option("--cycle", type=float, help="New weight of the cycle loss.")
@click.option("--identity", type=float, help="New weight of the identity loss.")
@click.option("--load", type=int, help="New short side to which photos are resized.")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), help="New precision of the convolutions.")
@click.option("--compile/--no-compile", default=None, help="Use torch.compile, or stop using it.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), help="New device to train on.")
def resume(folder: Path, **changes: Any) -> None:
    """Continue a run that was stopped; options change its settings from here on."""
    from trainer import loop

    config = load_checkpoint(folder).config

    def changed(part: Any, *names: str) -> Any:
        return replace(part, **{name: changes[name] for name in names if changes[name] is not None})

    config = replace(
        config,
        data=changed(config.data, "load"),
        losses=changed(config.losses, "cycle", "identity"),
        schedule=changed(config.schedule, "epochs", "decay_epochs", "rate", "average"),
        machine=changed(config.machine, "precision", "compile", "device"),
    )
    _exit_unless(finished=loop.resume(folder, config), folder=folder)


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
        say(str(path))


@commands.command()
@click.argument("target", metavar="RUN|MODEL", type=click.Path(path_type=Path, exists=True))
@click.argument("data", type=FOLDER)
@click.option("--back", type=click.Path(path_type=Path, dir_okay=False), help="Model of the way back, beside MODEL.")
@click.option("--reverse", is_flag=True, help="MODEL translates B to A.")
@click.option("--limit", type=int, help="Test photos of each domain at most.")
@click.option("--backend", type=click.Choice(get_args(BackendName)), default=GenerateConfig.backend, show_default=True)
@click.option("--curated", type=FOLDER, help="Also score on this curated part of DATA, made by `curate`.")
@click.option("--fid", is_flag=True, help="FID and KID too; needs the extra `fid`, downloads weights.")
@click.option("--fid-weights", type=click.Path(path_type=Path, exists=True), help="File of the weights for --fid.")
def evaluate(
    target: Path, data: Path, back: Path | None, reverse: bool, limit: int | None, curated: Path | None, **options: Any
) -> None:
    """Score a run, or a model file, on the test photos of DATA (testA/ testB/; trainA/ trainB/ for the classifier)."""
    from trainer import scoring

    config = GenerateConfig(backend=options["backend"])
    fid = Fid(options["fid_weights"]) if options["fid"] or options["fid_weights"] else None
    scores = scoring.score(
        target, data, back=back, reverse=reverse, limit=limit, config=config, fid=fid, curated=curated
    )
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


@commands.command()
@click.argument("first", metavar="MODEL", type=click.Path(path_type=Path))
@click.argument("second", metavar="MODEL", type=click.Path(path_type=Path))
@click.argument("photos", type=click.Path(path_type=Path, exists=True, dir_okay=False), nargs=-1)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Sheet of PHOTOS, PNG or JPEG.")
@click.option("--side", type=int, default=256, show_default=True, help="Short side of the photos in pixels.")
def compare(first: Path, second: Path, photos: tuple[Path, ...], out: Path | None, side: int) -> None:
    """Print the scores in the cards of two models side by side, and draw PHOTOS above both translations."""
    from trainer import scoring

    if bool(photos) != (out is not None):
        raise click.UsageError("PHOTOS and --out belong together.")
    table = scoring.compare(first, second, photos, out, side=side)
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    for name, *values in table:
        columns = (value.rjust(width) for value, width in zip(values, widths[1:], strict=True))
        say(f"{name.ljust(widths[0])}  {'  '.join(columns)}")


def run_config(
    data: Path | None, train_a: Path | None, train_b: Path | None, start_from: str | None, **options: Any
) -> RunConfig:
    """Return the configuration of a run for the options of `fit`."""
    if data is None and (train_a is None or train_b is None):
        raise click.UsageError("Give DATA, or both --a and --b.")
    held_out = () if data is None else tuple(path for path in (data / "testA", data / "testB") if path.is_dir())

    models = tuple(find_model(name) for name in (start_from or "").split(",") if name)
    if len(models) > 2:
        raise SetupError("--start-from takes one generator, or two with a comma between them.")

    def pick(*names: str) -> dict[str, Any]:
        return {name: options[name] for name in names}

    try:
        architecture = (
            architecture_of(models) if models else Architecture(**pick("ngf", "blocks", "upsample", "learn_residual"))
        )
    except ValueError as error:
        raise SetupError(f"--{error}.") from None
    if options["generator_norm"] == "stored":
        architecture = replace(architecture, track_running_stats=True)

    return RunConfig(
        data=DataConfig(
            train_a=(train_a or cast(Path, data) / "trainA").absolute(),
            train_b=(train_b or cast(Path, data) / "trainB").absolute(),
            held_out=tuple(path.absolute() for path in held_out),
            **pick("load", "crop", "flip"),
        ),
        start_from=models,
        networks=NetworkConfig(architecture=architecture, **pick("ndf", "discriminator_norm")),
        losses=LossConfig(**pick("cycle", "identity")),
        schedule=ScheduleConfig(**pick("epochs", "decay_epochs", "batch", "rate", "average", "seed")),
        machine=MachineConfig(**pick("device", "precision", "compile")),
    )


def _refuse_architecture_beside_start(context: click.Context) -> None:
    """Raise a usage error if --start-from is combined with an option that its generators decide."""
    if context.params["start_from"] is None:
        return
    for name in ("ngf", "blocks", "upsample", "learn_residual"):
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name.replace('_', '-')} is decided by the generators of --start-from; omit it.")


def _exit_unless(*, finished: bool, folder: Path) -> None:
    if not finished:
        say(f"Stopped before the end; `solstice-train resume {folder}` continues.", err=True)
        raise click.exceptions.Exit(STOPPED)
