"""`solstice convert`: arguments to configuration to run to summary."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.archive import Summary
from engine.archive import convert as convert_archive
from engine.config import (
    BackendName,
    BatchConfig,
    DecodeConfig,
    EncodeConfig,
    GenerateConfig,
    PipelineConfig,
    PrecisionName,
)
from engine.device import choose_device
from engine.encode import FORMATS
from engine.memory import parse_bytes
from engine.rates import lanes_for
from engine.records import Detail, Failed, Options, Outcome, Size
from engine.run_report import ReportKind
from engine.sources.listing import count_inputs
from engine.storage import is_url

_PIXELS_PER_IMAGE = 512 * 512  # what is assumed where the size depends on the photo


class SizeType(click.ParamType[Size]):
    """`256`, `320x200` or `native`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Parse, or fail with the sentence of `Size.parse`."""
        if isinstance(value, Size):
            return value
        try:
            return Size.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class MemoryType(click.ParamType[int]):
    """`6G`, `800M`."""

    name = "memory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse, or fail with the sentence of `parse_bytes`."""
        try:
            return parse_bytes(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.argument("src")
@click.argument("dst")
@click.option("--model", required=True, metavar="NAME|FILE", help="Model name (see `solstice models`) or file.")
@click.option(
    "--size",
    type=SizeType(),
    default="auto",
    show_default=True,
    metavar="auto|N|WxH|native",
    help="Size at which the generator works: short side, exact size, or the photo's own; "
    "auto is the photo's own up to a megapixel and 512 above.",
)
@click.option(
    "--detail",
    type=click.Choice(get_args(Detail)),
    default=None,
    show_default="guided with --size auto, none otherwise",
    help="Bring the result back to the photo's own size: by interpolation, or guided by the photo's own detail.",
)
@click.option("--format", type=click.Choice(["keep", *FORMATS]), default=Options().format, show_default=True)
@click.option("--quality", type=click.IntRange(1, 100), default=EncodeConfig.quality, show_default=True)
@click.option(
    "--subsampling",
    type=click.Choice(["4:4:4", "4:2:2", "4:2:0"]),
    default=EncodeConfig.subsampling,
    show_default=True,
    help="JPEG chroma subsampling.",
)
@click.option("--progressive", is_flag=True, help="Progressive JPEG: a little smaller, slower to encode.")
@click.option("--lossless", is_flag=True, help="Lossless WebP.")
@click.option("--strip", is_flag=True, help="Leave out EXIF, XMP, IPTC and comments.")
@click.option("--keep-profile", is_flag=True, help="Write in each photo's own colour profile instead of sRGB.")
@click.option("--times", is_flag=True, help="Give results the times of last change of their inputs.")
@click.option(
    "--report",
    is_flag=False,
    flag_value="sample",
    default=None,
    type=click.Choice(get_args(ReportKind)),
    metavar="[=sample|all]",
    help="Write report.html into DST: before/after photos (a sample, or all), failures, speed, settings.",
)
@click.option("--batch", type=click.IntRange(1, 1024), default=BatchConfig.size, show_default=True)
@click.option("--backend", type=click.Choice(get_args(BackendName)), default=GenerateConfig.backend, show_default=True)
@click.option(
    "--precision", type=click.Choice(get_args(PrecisionName)), default=GenerateConfig.precision, show_default=True
)
@click.option("--device", default=GenerateConfig.device, show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--memory",
    type=MemoryType(),
    default=None,
    metavar="SIZE",
    help="Memory for the generator, such as 6G; larger photos go in bands. Default: half of what is free.",
)
@click.option("--max-pixels", type=click.IntRange(1), default=DecodeConfig.max_pixels, show_default=True)
@click.option("--allow-damaged", is_flag=True, help="Translate JPEGs with damaged data instead of refusing them.")
@click.option("--overwrite", is_flag=True, help="Do again what is done, and replace files that were there before.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on standard output.")
def convert(
    src: str,
    dst: str,
    model: str,
    times: bool,
    report: ReportKind | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Translate the photos of SRC into the folder DST.

    SRC is a folder (searched through), an image, a list of paths (.txt), a .tar or a .zip; DST mirrors its tree.
    A second run does only what is missing, changed or failed.

    Exit code 0: all converted or already done. 1: some failed, all others are converted. 2: the run could not start
    or go on. 130: interrupted; the same command goes on from there.
    """
    console = Console(stderr=True)
    count = None if is_url(src) else count_inputs(Path(src), skip=None if is_url(dst) else Path(dst))
    config = _config(count, options)
    with _quiet_libraries(), _Bar(console, count) as bar:
        summary = convert_archive(
            src, dst, model, config, overwrite=overwrite, keep_times=times, report=report, progress=bar
        )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(summary)))
    else:
        _print_summary(summary, dst)
    sys.exit(1 if summary.failed else 0)


def _config(count: int | None, options: dict[str, Any]) -> PipelineConfig:
    size: Size = options["size"]
    area = size.width * size.height or _PIXELS_PER_IMAGE
    detail: Detail = options["detail"] or ("guided" if size.mode == "auto" else "none")
    return PipelineConfig(
        options=Options(size=size, detail=detail, format=options["format"]),
        decode=DecodeConfig(max_pixels=options["max_pixels"], allow_damaged=options["allow_damaged"]),
        batch=BatchConfig(size=options["batch"]),
        generate=GenerateConfig(
            backend=options["backend"],
            precision=options["precision"],
            device=options["device"],
            sides=(_side_of(size),),
            lanes=lanes_for(choose_device(options["device"])),
            memory_bytes=options["memory"],
            expected_pixels=None if count is None else count * area,
        ),
        encode=EncodeConfig(
            quality=options["quality"],
            subsampling=options["subsampling"],
            progressive=options["progressive"],
            lossless=options["lossless"],
            strip=options["strip"],
            keep_profile=options["keep_profile"],
        ),
    )


def _side_of(size: Size) -> int:
    """Give the side that a GPU's engine is tuned for; photos at their own size are taken to be large."""
    return -(-min(size.width, size.height) // 4) * 4 or 2048


class _Bar:
    """A live line on a terminal: done, failed, images/s, time left; nothing elsewhere."""

    def __init__(self, console: Console, total: int | None) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("converting", total=total, failed=0, rate="")
        self._ended = 0
        self._failed = 0

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, outcome: Outcome | None, skipped: int) -> None:
        if outcome is None:
            return
        self._ended += 1
        self._failed += isinstance(outcome, Failed)
        speed = self._bar.tasks[0].speed
        rate = f"{speed:.1f} images/s" if speed else ""
        self._bar.update(self._task, completed=self._ended + skipped, failed=self._failed, rate=rate)


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep what the decoding libraries write to the process's standard error out of the user's sight.

    They report each damaged image there, once more and in their own words, and would tear the progress bar.
    """
    if os.environ.get("SOLSTICE_DECODER_LOG") == "1":
        yield
        return
    sys.stderr.flush()
    ours = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    stderr, sys.stderr = sys.stderr, os.fdopen(os.dup(ours), "w", buffering=1)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = stderr
        os.dup2(ours, 2)
        os.close(ours)
        os.close(nowhere)


def _print_summary(summary: Summary, dst: str) -> None:
    rate = f", {summary.images_per_second:.1f} images/s" if summary.converted else ""
    click.echo(
        f"{summary.converted} converted, {summary.skipped} already done, {summary.failed} failed "
        f"in {summary.seconds:.1f} s{rate} ({summary.backend})"
    )
    for failure in summary.failures[:20]:
        click.echo(f"  {failure['path']}: {failure['error']}")
    if len(summary.failures) > 20:
        click.echo(f"  … and {len(summary.failures) - 20} more (--json lists all)")
    if summary.converted:
        click.echo(f"Results are in {dst}.")
    if summary.report:
        click.echo(f"The page to look at is {summary.report}.")
