"""`solstice import`: convert a checkpoint to a model file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli.models import network_of
from engine.cli.options import INPUT, MODEL, command
from engine.errors import SetupError
from engine.model.card import NORMS, PADDINGS, SUFFIX, Card
from engine.system.terminal import visible

if TYPE_CHECKING:
    from engine.model.network import GeneratorNetwork
    from engine.model.reference import GeneratorCheckpoint

ALWAYS_ASSUMED = (
    "the rest as in the original: reflection at the borders of the image, ReLU, tanh at the end, values from -1 to 1"
)
"""What no key tells and no option changes."""


@command("import")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@MODEL.option("--source-domain", default="A", metavar="WORD", help="Domain of the input, such as summer.")
@MODEL.option("--target-domain", default="B", metavar="WORD", help="Domain of the output, such as winter.")
@MODEL.option("--training-size", type=click.IntRange(16), help="Side of the training crops in pixels.")
@MODEL.option("--licence", default="", metavar="TEXT", help="Licence of the weights.")
@INPUT.option(
    "--generator", metavar="NAME", help="Which of several generators in the file: A2B, B2A, or a name in the file."
)
@INPUT.option(
    "--norm",
    type=click.Choice(NORMS),
    help="Norm of the network where the file cannot tell: instance uses the statistics of each image, batch those "
    "stored in the file.",
)
@INPUT.option(
    "--padding",
    type=click.Choice(PADDINGS),
    help="Padding in the residual blocks, which the file cannot tell.",
)
@INPUT.option(
    "--learn-residual/--no-learn-residual",
    default=None,
    help="The network adds its output to its input, as that of DeblurGAN does.",
)
@INPUT.option(
    "--check",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="INPUT EXPECTED",
    help="Compare with an image EXPECTED that the old code made from the image INPUT, and refuse a wrong import.",
)
def import_model(
    checkpoint: Path,
    model: Path,
    source_domain: str,
    target_domain: str,
    training_size: int | None,
    licence: str,
    generator: str | None,
    norm: str | None,
    padding: str | None,
    learn_residual: bool | None,
    check: tuple[Path, Path] | None,
) -> None:
    """Convert a CycleGAN checkpoint to a model file.

    CHECKPOINT is a file such as latest_net_G_A.pth, or an ONNX file; MODEL is a .safetensors file. The network is told
    by the names and shapes of the tensors; nothing else is read from the checkpoint, and no code in it is run. What
    they do not tell is assumed and printed; --check compares the result with an image that the old code made.
    """
    if model.suffix != SUFFIX:
        raise SetupError(f"The model file must end in {SUFFIX}, got {model}.")
    from engine.model.assumptions import Stated  # after the check: this loads torch
    from engine.model.onnx_weights import SUFFIX as ONNX_SUFFIX
    from engine.model.reference import read_checkpoint
    from engine.model.weights import save_generator

    stated = Stated(norm=norm, padding=padding, learn_residual=learn_residual)
    is_onnx = checkpoint.suffix == ONNX_SUFFIX
    found = read_checkpoint(checkpoint, generator=generator, stated=stated)
    module, checked = _build_as_onnx(found, check) if is_onnx else _build(found, check)
    assumed = None if found.card is not None or is_onnx else _assumed(found, is_checked=check is not None)
    notes = [f"Imported from {checkpoint.name}{f', {found.name}' if found.name else ''}."]
    notes += [f"{remark[0].upper()}{remark[1:]}." for remark in found.remarks]
    notes += [note for note in (assumed, checked) if note is not None]
    card = Card(
        name=model.stem,
        source_domain=source_domain,
        target_domain=target_domain,
        architecture=module.arch,
        training_size=training_size,
        licence=licence,
        notes=" ".join(notes),
    )
    if found.card is not None:
        card = replace(found.card, name=model.stem)
    try:
        save_generator(model, module, card, dtype=next(module.parameters()).dtype)
    except OSError as error:
        raise SetupError(f"{model} cannot be written: {error.strerror or error}.") from error
    click.echo(visible(f"{model}: {network_of(card)}"))
    for note in notes[1:]:
        click.echo(visible(note))
    if assumed is not None and check is None:
        click.echo("Compare with an image that the old code made: --check INPUT EXPECTED.", err=True)


def _build_as_onnx(found: GeneratorCheckpoint, check: tuple[Path, Path] | None) -> tuple[GeneratorNetwork, str]:
    """Return the generator that computes what the ONNX file does, and how far it is from it in a sentence."""
    from engine.model.onnx_run import choose_by_running

    if check is not None:
        raise SetupError("--check does not apply to an ONNX file, which is run itself to compare; leave it out.")
    module, error = choose_by_running(found)
    return module, f"Its output was compared with that of the ONNX file: the largest difference is {error:.1e} of 2."


def _build(found: GeneratorCheckpoint, check: tuple[Path, Path] | None) -> tuple[GeneratorNetwork, str | None]:
    """Return the generator, and the result of the check in a sentence."""
    if check is None:
        return found.build(), None
    from engine.codec.plain import read_plain
    from engine.model.comparison import check_reading

    given, expected = (read_plain(path) for path in check)
    is_lossy = given.is_lossy or expected.is_lossy
    module, fit = check_reading(found, given.pixels_HWC, expected.pixels_HWC, is_lossy=is_lossy)
    return module, f"Its output was compared with an image that the original code made: {fit}."


def _assumed(found: GeneratorCheckpoint, *, is_checked: bool) -> str:
    """Return what was assumed in a sentence."""
    assumptions = found.readings[0].assumptions
    if is_checked:
        return f"Assumed and checked: {'; '.join([*(one.text for one in assumptions), ALWAYS_ASSUMED])}."
    words = [f"{one.text} ({one.option})" if one.option else one.text for one in assumptions]
    return f"Assumed, as the file cannot tell: {'; '.join([*words, ALWAYS_ASSUMED])}."
