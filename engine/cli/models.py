"""`solstice models` and `solstice import`: list models, and convert a checkpoint to a model."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.cli.options import INPUT, MODEL, MONITORING, command
from engine.errors import SetupError
from engine.model.card import SUFFIX, Card, list_models, read_card
from engine.system.terminal import visible


@command("models")
@MONITORING.option(
    "--verbose", is_flag=True, help="Show the whole card of each model: data, licence, training, scores."
)
def models(verbose: bool) -> None:
    """List the models that --model accepts by name.

    A folder named in the environment variable SOLSTICE_MODELS adds the model files in it.
    """
    if verbose:
        for path in list_models().values():
            click.echo(visible(describe(read_card(path)), lines=True) + "\n")
        return
    table = Table("name", "translates", "network", "trained at", "licence")
    for name, path in list_models().items():
        card = read_card(path)
        size = f"{card.training_size} px" if card.training_size else "unknown"
        cells = (name, f"{card.source_domain} → {card.target_domain}", network_of(card), size, card.licence)
        table.add_row(*(escape(visible(cell)) for cell in cells))
    Console().print(table)


@command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@MODEL.option("--source-domain", default="A", metavar="WORD", help="Domain of the input, such as summer.")
@MODEL.option("--target-domain", default="B", metavar="WORD", help="Domain of the output, such as winter.")
@MODEL.option("--training-size", type=click.IntRange(16), help="Side of the training crops in pixels.")
@MODEL.option("--licence", default="", metavar="TEXT", help="Licence of the weights.")
@INPUT.option(
    "--learn-residual", is_flag=True, help="The network adds its output to its input, as that of DeblurGAN does."
)
def import_model(
    checkpoint: Path,
    model: Path,
    source_domain: str,
    target_domain: str,
    training_size: int | None,
    licence: str,
    learn_residual: bool,
) -> None:
    """Convert a CycleGAN checkpoint to a model file.

    CHECKPOINT is a file such as latest_net_G_A.pth, MODEL a .safetensors file. Blocks, width and normalisation are
    inferred from the tensors; nothing else is read from the checkpoint, and no code in it is run.
    """
    if model.suffix != SUFFIX:
        raise SetupError(f"The model file must end in {SUFFIX}, got {model}.")
    from engine.model.reference import read_checkpoint  # after the check: this loads torch
    from engine.model.weights import save_generator

    module = read_checkpoint(checkpoint, learn_residual=learn_residual)
    card = Card(
        name=model.stem,
        source_domain=source_domain,
        target_domain=target_domain,
        architecture=module.arch,
        training_size=training_size,
        licence=licence,
        notes=f"Imported from {checkpoint.name}.",
    )
    save_generator(model, module, card, dtype=next(module.parameters()).dtype)
    click.echo(visible(f"{model}: {network_of(card)}"))


def describe(card: Card) -> str:
    """Return a card as text of at most 100 columns."""
    lines = [f"{card.name}: {card.source_domain} → {card.target_domain}", f"  network   {network_of(card)}"]
    texts = {"data": card.data, "licence": card.licence, "notes": card.notes}
    for title, text in texts.items():
        if text:
            lines += textwrap.wrap(text, 100, initial_indent=f"  {title:10}", subsequent_indent=" " * 12)
    for title, values in {"training": card.training, "scores": card.scores}.items():
        lines += [f"  {title:10}{name}: {value}" for name, value in values.items()]
    return "\n".join(lines)


def network_of(card: Card) -> str:
    """Return a generator's architecture in a few words, such as `ResNet-9, ngf 64`."""
    arch = card.architecture
    flags = {"affine": arch.affine, "running statistics": arch.track_running_stats}
    extras = [name for name, is_set in flags.items() if is_set]
    if arch.upsample != "transpose":
        extras.append(f"{arch.upsample} up-sampling")
    if arch.learn_residual:
        extras.append("learned residual")
    return ", ".join([f"ResNet-{arch.blocks}", f"ngf {arch.ngf}", *extras])
