"""`solstice models` and `solstice import`: what can be named, and how a checkpoint becomes a model."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from engine.errors import SetupError
from engine.model.reference import read_checkpoint
from engine.model.weights import SUFFIX, Card, list_models, read_card, save_generator


@click.command()
@click.option("--verbose", is_flag=True, help="Show each model's whole card.")
def models(verbose: bool) -> None:
    """List the models that can be named in --model."""
    if verbose:
        for path in list_models().values():
            click.echo(describe(read_card(path)) + "\n")
        return
    table = Table("name", "translates", "network", "trained at", "licence")
    for name, path in list_models().items():
        card = read_card(path)
        size = f"{card.training_size} px" if card.training_size else "unknown"
        table.add_row(name, f"{card.source_domain} → {card.target_domain}", network_of(card), size, card.licence)
    Console().print(table)


@click.command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--source-domain", default="A", show_default=True, help="What goes in, such as summer.")
@click.option("--target-domain", default="B", show_default=True, help="What comes out, such as winter.")
@click.option("--training-size", type=click.IntRange(16), help="Side of the training crops in pixels.")
@click.option("--licence", default="", help="Licence of the weights.")
@click.option("--learn-residual", is_flag=True, help="The network adds its output to its input, as DeblurGAN's does.")
def import_model(
    checkpoint: Path,
    model: Path,
    source_domain: str,
    target_domain: str,
    training_size: int | None,
    licence: str,
    learn_residual: bool,
) -> None:
    """Turn a CycleGAN CHECKPOINT (latest_net_G_A.pth) into a MODEL file (.safetensors).

    Blocks, width and normalisation are inferred from the checkpoint; only tensors are read from it, never code.
    """
    if model.suffix != SUFFIX:
        raise SetupError(f"The model file must end in {SUFFIX}, got {model}.")
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
    click.echo(f"{model}: {network_of(card)}")


def describe(card: Card) -> str:
    """Lay out a card for reading."""
    lines = [f"{card.name}: {card.source_domain} → {card.target_domain}", f"  network   {network_of(card)}"]
    texts = {"data": card.data, "licence": card.licence, "notes": card.notes}
    for title, text in texts.items():
        if text:
            lines += textwrap.wrap(text, 100, initial_indent=f"  {title:10}", subsequent_indent=" " * 12)
    for title, values in {"training": card.training, "scores": card.scores}.items():
        lines += [f"  {title:10}{name}: {value}" for name, value in values.items()]
    return "\n".join(lines)


def network_of(card: Card) -> str:
    """Say in a few words what a generator is."""
    arch = card.architecture
    extras = [
        name for name, there in (("affine", arch.affine), ("running statistics", arch.track_running_stats)) if there
    ]
    if arch.upsample != "transpose":
        extras.append(f"{arch.upsample} up-sampling")
    if arch.learn_residual:
        extras.append("learned residual")
    return ", ".join([f"ResNet-{arch.blocks}", f"ngf {arch.ngf}", *extras])
