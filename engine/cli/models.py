"""`solstice models`: list models."""

from __future__ import annotations

import textwrap

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.cli.options import MONITORING, command
from engine.model.card import Card, list_models, read_card
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
    """Return a generator's architecture in a few words, such as `ResNet-9, ngf 64` or `U-Net-8, ngf 64, batch norm`."""
    arch = card.architecture
    words = [f"U-Net-{arch.levels}" if arch.network == "unet" else f"ResNet-{arch.blocks}", f"ngf {arch.ngf}"]
    if arch.norm != "instance":
        words.append(f"{arch.norm} norm".replace("none", "no"))
    flags = {"affine": arch.affine, "running statistics": arch.track_running_stats}
    words += [name for name, is_set in flags.items() if is_set]
    if arch.padding != "reflect":
        words.append(f"{arch.padding} padding")
    if arch.downsample != "strided":
        words.append(f"{arch.downsample} down-sampling")
    if arch.upsample != "transpose":
        words.append(f"{arch.upsample} up-sampling")
    if (arch.channels_in, arch.channels_out) != (3, 3):
        words.append(f"{arch.channels_in} to {arch.channels_out} channels")
    if arch.learn_residual:
        words.append("learned residual")
    return ", ".join(words)
