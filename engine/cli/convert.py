"""`solstice convert`: arguments to configuration to run to summary."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from engine.archive.report import ReportKind
from engine.cli.options import (
    METADATA,
    MODEL,
    MONITORING,
    OUTPUT,
    SIZE,
    SPEED,
    SectionCommand,
    SizeType,
    command,
    metrics_options,
    result_options,
    translate_options,
)
from engine.cli.secrets import refuse_password
from engine.config import BatchConfig, DecodeConfig, EncodeConfig, GenerateConfig, PipelineConfig
from engine.errors import SetupError
from engine.options import Detail, Options, Size, default_detail
from engine.records import Failed, Outcome

if TYPE_CHECKING:  # loading torch takes seconds, which `--help` and a mistyped option must not
    from engine.archive.convert import Summary
    from engine.cli.progress import ProgressLine
    from engine.observe.metrics import Metrics

_PIXELS_PER_IMAGE = 512 * 512  # what is assumed where the size depends on the photo


class ConvertCommand(SectionCommand):
    """Accept a bare `--report` anywhere, also before SRC."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give a bare `--report` its value, so that it does not take the next argument, such as SRC, for it."""
        end = args.index("--") if "--" in args else len(args)
        for i in range(end):
            if args[i] == "--report" and args[i + 1 : i + 2] not in [[kind] for kind in get_args(ReportKind)]:
                args[i] = "--report=sample"
        return super().parse_args(ctx, args)


@command("convert", cls=ConvertCommand)
@click.argument("src", callback=refuse_password)
@click.argument("dst", callback=refuse_password)
@MODEL.option("--model", required=True, metavar="NAME|FILE", help="Model name (see `solstice models`) or file.")
@SIZE.option(
    "--size",
    type=SizeType(),
    default="auto",
    metavar="auto|N|WxH|native",
    help="Size at which the generator works: short side, exact size, or the photo's own; "
    "auto is the photo's own up to a megapixel and 512 above.",
)
@SIZE.option(
    "--detail",
    type=click.Choice(get_args(Detail)),
    default=None,
    show_default="guided with --size auto, none otherwise",
    help="Enlarge the result to the photo's own size: by interpolation, or guided by the photo's own detail.",
)
@result_options
@OUTPUT.option(
    "--subsampling",
    type=click.Choice(["4:4:4", "4:2:2", "4:2:0"]),
    default=EncodeConfig.subsampling,
    help="JPEG chroma subsampling.",
)
@OUTPUT.option("--progressive", is_flag=True, help="Progressive JPEG: a little smaller, slower to encode.")
@OUTPUT.option("--lossless", is_flag=True, help="Lossless WebP.")
@METADATA.option("--strip", is_flag=True, help="Leave out EXIF, XMP, IPTC and comments.")
@METADATA.option("--keep-profile", is_flag=True, help="Write in each photo's own colour profile instead of sRGB.")
@METADATA.option("--times", is_flag=True, help="Give results the modification times of their inputs.")
@MONITORING.option(
    "--report",
    type=click.Choice(get_args(ReportKind)),
    metavar="[sample|all]",
    help="Write report.html into DST: before/after photos (a sample, or all), failures, speed, settings.",
)
@translate_options
@SPEED.option(
    "--devices",
    metavar="all|LIST",
    help="Several devices at once, a process for each: all GPUs, or some, such as cuda:0,cuda:2.",
)
@metrics_options
@OUTPUT.option(
    "--overwrite", is_flag=True, help="Convert again what is done, and replace files that were there before."
)
@MONITORING.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on standard output.")
def convert(
    src: str,
    dst: str,
    model: str,
    times: bool,
    report: ReportKind | None,
    devices: str | None,
    overwrite: bool,
    as_json: bool,
    metrics_port: int | None,
    metrics_host: str,
    **options: Any,
) -> None:
    """Translate the photos of SRC into the folder DST.

    SRC is a folder (searched through), an image, a list of paths (.txt), a .tar or a .zip; DST mirrors its tree.
    A second run does only what is missing, changed or failed.

    Exit code 0: all converted or already done. 1: some failed, all others are converted. 2: the run could not start
    or continue. 130: interrupted; run the same command again to continue.
    """
    from engine.archive.convert import convert as convert_archive
    from engine.archive.parallel import convert_on
    from engine.cli.progress import ProgressLine
    from engine.listing import count_inputs
    from engine.system.storage import is_url

    count = None if is_url(src) else count_inputs(Path(src), skip=None if is_url(dst) else Path(dst))
    several = _devices(devices, options)
    config = _config(count, options)
    work = partial(convert_on, several) if several else convert_archive
    with _served(metrics_port, metrics_host) as metrics, _quiet_libraries(), ProgressLine("converting", count) as line:
        summary = work(
            src,
            dst,
            model,
            config,
            overwrite=overwrite,
            keep_times=times,
            report=report,
            progress=_Counter(line),
            metrics=metrics,
        )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(summary)))
    else:
        _print_summary(summary, dst)
    sys.exit(1 if summary.failed else 0)


def _devices(text: str | None, options: dict[str, Any]) -> tuple[str, ...]:
    """Give the devices that take a process each; none where one is meant, which becomes `--device`."""
    if text is None:
        return ()
    if options["device"] != GenerateConfig.device:
        raise SetupError("--device and --devices are two ways to say where to compute; leave one of them out.")
    from engine.archive.parallel import parse_devices

    devices = parse_devices(text)
    options["device"] = devices[0]
    return devices if len(devices) > 1 else ()


def _config(count: int | None, options: dict[str, Any]) -> PipelineConfig:
    size: Size = options["size"]
    area = size.width * size.height or _PIXELS_PER_IMAGE
    detail: Detail = options["detail"] or default_detail(size)
    return PipelineConfig(
        options=Options(size=size, detail=detail, format=options["format"]),
        decode=DecodeConfig(
            max_pixels=options["max_pixels"], allow_damaged=options["allow_damaged"], jpegs=options["decode"]
        ),
        batch=BatchConfig(size=options["batch"]),
        generate=GenerateConfig(
            backend=options["backend"],
            precision=options["precision"],
            device=options["device"],
            sides=(_side_of(size),),
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
            gpu_from_pixels=options["gpu_encode_from"],
        ),
    )


def _side_of(size: Size) -> int:
    """Give the side that a GPU's engine is tuned for; photos at their own size are taken to be large."""
    return -(-min(size.width, size.height) // 4) * 4 or 2048


class _Counter:
    """Counts outcomes for the line on the terminal."""

    def __init__(self, line: ProgressLine) -> None:
        self._line = line
        self._ended = 0
        self._failed = 0

    def __call__(self, outcome: Outcome | None, skipped: int) -> None:
        if outcome is None:
            return
        self._ended += 1
        self._failed += isinstance(outcome, Failed)
        self._line.show(self._ended + skipped, self._failed)


@contextmanager
def _served(port: int | None, host: str) -> Iterator[Metrics | None]:
    """Serve metrics during a `with` block when there is a port to serve them at; raises `SetupError`."""
    if port is None:
        yield None
        return
    from engine.observe.prometheus import serve_metrics

    metrics, server = serve_metrics(port, host)
    click.echo(f"Metrics at http://{host}:{server.port}/metrics", err=True)
    try:
        yield metrics
    finally:
        server.close()


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
