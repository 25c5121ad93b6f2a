"""`solstice export`: write a model for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from engine.cli.options import OUTPUT, SPEED, command
from engine.config import GenerateConfig
from engine.errors import SetupError
from engine.system.terminal import visible

SUFFIXES = {"onnx": (".onnx",), "torch": (".pth", ".pt"), "package": (".pt2",)}


@command("export")
@click.argument("model", metavar="MODEL")
@click.argument("out", type=click.Path(path_type=Path))
@OUTPUT.option(
    "--to",
    "kind",
    required=True,
    type=click.Choice(list(SUFFIXES)),
    help="onnx for ONNX Runtime and others, torch for the project that the generator comes from, package for PyTorch "
    "on this kind of machine.",
)
@OUTPUT.option(
    "--dtype",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    default="fp32",
    help="Type of weights and layers: bf16 only for a package, fp32 only for torch.",
)
@OUTPUT.option("--raw", is_flag=True, help="ONNX from and to floats NCHW from -1 to 1, instead of uint8 NHWC.")
@SPEED.option(
    "--device",
    default=GenerateConfig.device,
    metavar="DEVICE",
    help="Device of a package: cpu, cuda or cuda:N; auto is a GPU if there is one.",
)
def export_model(model: str, out: Path, kind: str, dtype: str, raw: bool, device: str) -> None:
    """Write a model for other programs.

    MODEL is a name or file, OUT the file to write. ONNX files and packages are compared with the fp32 module first, and
    not written if they compute something else.
    """
    if out.suffix not in SUFFIXES[kind]:
        raise SetupError(f"A file for --to {kind} must end in {' or '.join(SUFFIXES[kind])}, got {out}.")
    if raw and kind != "onnx":
        raise SetupError("--raw applies to --to onnx only.")
    if dtype != "fp32" and kind == "torch":
        raise SetupError("--to torch writes fp32; leave out --dtype.")
    if dtype == "bf16" and kind == "onnx":
        raise SetupError("ONNX Runtime has hardly any layers in bf16; use --dtype fp16 or fp32.")
    from engine.model.weights import load_generator  # after the checks: this loads torch

    generator = load_generator(model)
    try:
        if kind == "onnx":
            from engine.runtime.export.onnx import export_onnx

            note = f"agrees with the fp32 module: {export_onnx(generator, out, dtype=dtype, raw=raw)}"
        elif kind == "package":
            from engine.runtime.export.package import export_package

            config = GenerateConfig(device=device)
            note = f"agrees with the fp32 module: {export_package(generator, out, config, dtype=dtype)}"
        else:
            from engine.model.export import save_checkpoint

            note = save_checkpoint(out, generator.module)
    except OSError as error:
        raise SetupError(f"{out} cannot be written: {error.strerror or error}.") from error
    click.echo(visible(f"{out}: {note}"))
