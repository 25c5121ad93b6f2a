"""`solstice convert`: arguments to configuration to run to summary."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import click

from engine.archive.config import ArchiveConfig, Pages
from engine.archive.report import ReportKind
from engine.cli.native_log import FILE_NAME, NativeLog
from engine.cli.options import (
    INPUT,
    METADATA,
    MODEL,
    MONITORING,
    OUTPUT,
    SIZE,
    SPEED,
    MemoryType,
    SectionCommand,
    SizeType,
    command,
    metrics_options,
    result_options,
    translate_options,
)
from engine.cli.output import say, say_some
from engine.cli.secrets import refuse_password
from engine.config import BatchConfig, DecodeConfig, EncodeConfig, GenerateConfig, PipelineConfig
from engine.errors import SetupError
from engine.options import WORKING_SIDE, Detail, Options, Size, default_detail
from engine.records import Failed, Outcome
from engine.system.allocator import keep_freed_memory

if TYPE_CHECKING:  # loading torch takes seconds, which `--help` and a mistyped option must not
    from engine.archive.run import RunProgress, Summary
    from engine.cli.progress import ProgressLine
    from engine.observe.metrics import Metrics


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
@METADATA.option("--sidecars", is_flag=True, help="Copy the .xmp and .json files that belong to photos.")
@INPUT.option(
    "--include",
    multiple=True,
    metavar="GLOB",
    help="Take only files and folders that match, such as '*.jpg' or '2019/**'; may be repeated.",
)
@INPUT.option(
    "--exclude", multiple=True, metavar="GLOB", help="Leave out files and folders that match; may be repeated."
)
@INPUT.option(
    "--pages",
    type=click.Choice(get_args(Pages)),
    default=ArchiveConfig.pages,
    help="Pages of TIFFs and frames of animations: the first, or all, each as a result of its own.",
)
@INPUT.option(
    "--max-bytes",
    type=MemoryType(),
    default=ArchiveConfig.max_bytes,
    show_default="2G",
    metavar="SIZE",
    help="Refuse files and members that are larger.",
)
@OUTPUT.option(
    "--suffix",
    default=ArchiveConfig.suffix,
    metavar="TEXT",
    show_default=False,
    help="Add TEXT to the names of results: _winter makes a_winter.jpg.",
)
@OUTPUT.option(
    "--name",
    default=ArchiveConfig.name,
    metavar="TEMPLATE",
    help="Name of a result whose own name belongs to another photo's result.",
)
@OUTPUT.option(
    "--shard-bytes",
    type=MemoryType(),
    default=ArchiveConfig.shard_bytes,
    metavar="SIZE",
    help="Split an output .tar into shards of at most this size.",
)
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
@SPEED.option(
    "--on",
    "engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Translate on this machine, or by actors on a Ray cluster.",
)
@SPEED.option(
    "--address",
    metavar="HOST:PORT|auto",
    help="With --on ray, the cluster, of which this machine is a node; without it $RAY_ADDRESS, or a cluster of this "
    "machine alone.",
)
@SPEED.option(
    "--ray-actors",
    type=click.IntRange(1),
    metavar="N",
    help="With --on ray, the number of actors; without it one for each GPU, or for each node without GPUs.",
)
@metrics_options
@OUTPUT.option(
    "--overwrite", is_flag=True, help="Convert again what is done, and replace files that were there before."
)
@OUTPUT.option("--dry-run", is_flag=True, help="Write nothing; print what would be converted, left out and renamed.")
@MONITORING.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object on standard output.")
def convert(
    src: str,
    dst: str,
    model: str,
    report: ReportKind | None,
    devices: str | None,
    engine: str,
    address: str | None,
    ray_actors: int | None,
    dry_run: bool,
    as_json: bool,
    metrics_port: int | None,
    metrics_host: str,
    **options: Any,
) -> None:
    """Translate the photos of SRC into the folder DST.

    SRC is a folder (searched through), an image, a list of paths (.txt), a tar (also .gz, .bz2, .xz, .zst) or a zip;
    DST mirrors its tree. DST may also be a file such as winter.jpg if SRC is one image, or a .tar. A second run
    converts only what is missing, changed or failed.

    Exit code 0: all converted or already done. 1: some failed, all others are converted. 2: the run could not start
    or continue. 130: interrupted; run the same command again to continue.
    """
    archive = _archive_config(options)
    if dry_run:
        _print_plan(src, dst, model, _config(options), archive, as_json)
        return
    keep_freed_memory()
    from engine.cli.progress import ProgressLine

    if engine != "ray" and (address is not None or ray_actors is not None):
        raise SetupError("--address and --ray-actors are for --on ray; add that, or leave them out.")
    work = _on_ray(address, ray_actors, devices) if engine == "ray" else _on_this_machine(devices, options)
    with (
        _served(metrics_port, metrics_host) as metrics,
        NativeLog() as native_log,
        ProgressLine("converting", None) as line,
    ):
        display = RunDisplay(line, None if _on_gpu(options["device"]) else native_log)
        summary = work(
            src, dst, model, _config(options), archive=archive, report=report, progress=display, metrics=metrics
        )
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(summary)))
    else:
        _print_summary(summary)
    sys.exit(1 if summary.failed else 0)


def _archive_config(options: dict[str, Any]) -> ArchiveConfig:
    return ArchiveConfig(
        include=options["include"],
        exclude=options["exclude"],
        pages=options["pages"],
        max_bytes=options["max_bytes"],
        suffix=options["suffix"],
        name=options["name"],
        overwrite=options["overwrite"],
        keep_times=options["times"],
        sidecars=options["sidecars"],
        shard_bytes=options["shard_bytes"],
    )


def _on_gpu(device: str) -> bool:
    from engine.system.device import choose_device

    return choose_device(device).type == "cuda"


def _on_ray(address: str | None, actors: int | None, devices: str | None) -> Callable[..., Summary]:
    """Return the function that translates on Ray; raise `SetupError` where Ray is not installed."""
    if devices is not None:
        raise SetupError("--devices and --on ray cannot be combined; Ray chooses devices, --ray-actors their number.")
    from engine.archive.distributed.cluster import require_ray

    require_ray()
    from engine.archive.distributed.run import convert_on_ray

    return partial(convert_on_ray, address=address, actors=actors)


def _on_this_machine(devices: str | None, options: dict[str, Any]) -> Callable[..., Summary]:
    """Return the function that translates here, on one device or several."""
    from engine.archive.convert import convert as convert_archive
    from engine.archive.parallel import convert_on

    several = _devices(devices, options)
    return partial(convert_on, several) if several else convert_archive


def _devices(text: str | None, options: dict[str, Any]) -> tuple[str, ...]:
    """Return the devices that get a process each; empty for a single device, which becomes `--device`."""
    if text is None:
        return ()
    if options["device"] != GenerateConfig.device:
        raise SetupError("--device and --devices cannot be combined; leave one of them out.")
    from engine.archive.parallel import parse_devices

    devices = parse_devices(text)
    options["device"] = devices[0]
    return devices if len(devices) > 1 else ()


def _config(options: dict[str, Any]) -> PipelineConfig:
    size: Size = options["size"]
    detail: Detail = options["detail"] or default_detail(size)
    return PipelineConfig(
        options=Options(size=size, detail=detail, format=options["format"], depth=options["depth"]),
        decode=DecodeConfig(
            max_pixels=options["max_pixels"],
            max_output_pixels=options["max_output_pixels"],
            allow_damaged=options["allow_damaged"],
            jpegs=options["decode"],
        ),
        batch=BatchConfig(size=options["batch"]),
        generate=GenerateConfig(
            backend=options["backend"],
            precision=options["precision"],
            trunk=options["trunk"],
            cuda_graph=options["cuda_graph"],
            device=options["device"],
            sides=(_side_of(size),),
            memory_bytes=options["memory"],
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
    """Return the side that a GPU's engine is tuned for; photos at their own size count as large.

    Most photos are above the limit up to which `auto` keeps their size.
    """
    if size.mode == "auto":
        return WORKING_SIDE
    return -(-min(size.width, size.height) // 4) * 4 or 2048


class RunDisplay:
    """Feeds the progress line, and opens the log of native output once the run has a folder for it."""

    def __init__(self, line: ProgressLine, native_log: NativeLog | None) -> None:
        self._line = line
        self._native_log = native_log
        self._ended = self._failed = 0
        self._bytes_left = self._bytes_ended = 0
        self._pixels_ended = 0

    def __call__(self, outcome: Outcome | None, progress: RunProgress) -> None:
        """Show the start of a run (None) or one more outcome."""
        if outcome is None:
            self._begin(progress)
        else:
            self._count(outcome, progress)

    def _begin(self, progress: RunProgress) -> None:
        self._line.begin(progress.num_inputs, progress.num_skipped, progress.oldest_under_way)
        self._bytes_left = progress.num_bytes
        if self._native_log is not None:
            self._native_log.open(None if progress.state_folder is None else progress.state_folder / FILE_NAME)

    def _count(self, outcome: Outcome, progress: RunProgress) -> None:
        """Show `outcome`; the pixels still to come are estimated from the bytes still to come."""
        from engine.archive.source import ArchiveOrigin

        self._ended += 1
        num_bytes = outcome.origin.num_bytes if isinstance(outcome.origin, ArchiveOrigin) else 0
        self._bytes_left -= num_bytes
        pixels = 0
        if isinstance(outcome, Failed):
            self._failed += 1
        else:
            pixels = outcome.payload.width * outcome.payload.height
            self._pixels_ended += pixels
            self._bytes_ended += num_bytes
        left = self._bytes_left * self._pixels_ended / self._bytes_ended if self._bytes_ended else None
        self._line.show(progress.num_skipped + self._ended, self._failed, work=pixels, work_left=left)


@contextmanager
def _served(port: int | None, host: str) -> Iterator[Metrics | None]:
    """Serve metrics during a `with` block if there is a port; raise `SetupError` when that is not possible."""
    if port is None:
        yield None
        return
    from engine.observe.prometheus import serve_metrics

    metrics, server = serve_metrics(port, host)
    say(f"Metrics at http://{host}:{server.port}/metrics", err=True)
    try:
        yield metrics
    finally:
        server.close()


def _print_summary(summary: Summary) -> None:
    from engine.listing.left_out import described, reader_hints

    rate = f", {summary.images_per_second:.1f} images/s" if summary.converted else ""
    say(
        f"{summary.converted:,} converted, {summary.skipped:,} already done, {summary.failed:,} failed "
        f"in {summary.seconds:.1f} s{rate} ({summary.backend})"
    )
    say_some([f"{failure['path']}: {failure['error']}" for failure in summary.failures], "--json lists all")
    if summary.remarks:
        say(f"Remarks on converted photos ({len(summary.remarks):,}):")
        say_some([f"{remark['path']}: {remark['remark']}" for remark in summary.remarks], "--json lists all")
    if summary.left_out:
        say(_sentence(described(summary.left_out).removeprefix("; ")))
        for hint in reader_hints(summary.left_out):
            say(hint)
    if summary.sidecars:
        say(f"Sidecars copied: {summary.sidecars:,}.")
    if summary.converted:
        say(f'Results are in "{summary.output}".')
    if summary.report:
        say(f'The report page is "{_absolute(summary.report)}".')


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)  # noqa: PTH100 (links stay as they are)


def _sentence(text: str) -> str:
    """Return a text with a capital first letter and a full stop; names in it keep their letter case."""
    return f"{text[:1].upper()}{text[1:]}."


def _print_plan(src: str, dst: str, model: str, config: PipelineConfig, archive: ArchiveConfig, as_json: bool) -> None:
    """Print what a run would do."""
    from engine.archive.dry_run import DryRun, dry_run
    from engine.archive.run import RunRequest
    from engine.listing.left_out import described

    found: DryRun = dry_run(RunRequest.of(src, dst, model, config, archive))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found)))
        return
    say(
        f"{found.to_convert:,} to convert ({_size(found.input_bytes)}), {found.skipped:,} already done, "
        f"{len(found.failures):,} would fail"
    )
    say_some([f"{failure['path']}: {failure['error']}" for failure in found.failures], "--json lists all")
    if found.renamed:
        say(f"Results with a second name ({len(found.renamed):,}):")
        say_some([f"{key}: {output}" for key, output in found.renamed.items()], "--json lists all")
    if found.left_out:
        say(_sentence(described(found.left_out).removeprefix("; ")))
    if found.expected_bytes is not None:
        say(f"Results need about {_size(found.expected_bytes)}{_free(found.free_bytes)}.")
    say("Nothing was written (--dry-run).")


def _free(free_bytes: int | None) -> str:
    return "" if free_bytes is None else f"; {_size(free_bytes)} are free"


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
