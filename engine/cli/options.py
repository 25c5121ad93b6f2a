"""Options that several commands share, and the headings that the help shows options under.

Every option belongs to a `Section`: write `OUTPUT.option("--quality", ...)` where click has `click.option(...)`, and
decorate the command with `command(...)` instead of `click.command(...)`. Defaults are the configuration's fields.
Nothing here may import torch: `--help` must stay quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import click

from engine.codec.formats import FORMATS
from engine.config import (
    CPU_BATCH,
    GPU_BATCH,
    LOOPBACK,
    BackendName,
    BatchConfig,
    DecodeConfig,
    EncodeConfig,
    GenerateConfig,
    PrecisionName,
    TrunkName,
)
from engine.options import Options, Size
from engine.system.memory import parse_bytes

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Section:
    """A heading of the help."""

    title: str

    def option(self, *names: str, **attributes: Any) -> Callable[[F], F]:
        """Return the decorator that `click.option` would, for an option under this heading."""
        return click.option(*names, cls=SectionOption, section=self, **attributes)


MODEL = Section("Model")
INPUT = Section("Input")
SIZE = Section("Size and detail")
OUTPUT = Section("Output")
METADATA = Section("Metadata")
SPEED = Section("Speed")
KAFKA = Section("Kafka connection")
TOPICS = Section("Topics and jobs")
LIMITS = Section("Limits and timeouts")
MONITORING = Section("Monitoring")
OTHER = Section("Other")

SECTIONS = (MODEL, INPUT, SIZE, OUTPUT, METADATA, SPEED, KAFKA, TOPICS, LIMITS, MONITORING, OTHER)
"""All headings, in the order of the help."""


_FIRST_COLUMN = 28
"""Characters of an option's name and value; a longer one has its text on the next line."""


class SectionOption(click.Option):
    """An option that is shown under a heading."""

    def __init__(self, *names: Any, section: Section, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.section = section
        if self.metavar is None and isinstance(self.type, click.IntRange | click.FloatRange):
            self.metavar = "N"


class SectionCommand(click.Command):
    """A command whose help shows its options under their headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list for each heading that has options, `--help` under the last."""
        lists: dict[Section, list[tuple[str, str]]] = {section: [] for section in SECTIONS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                lists[getattr(param, "section", OTHER)].append(record)
        column = max(len(term) for records in lists.values() for term, _ in records if len(term) <= _FIRST_COLUMN)
        for section, records in lists.items():
            if records:
                with formatter.section(section.title):
                    formatter.write_dl([(term.ljust(column), text) for term, text in records], _FIRST_COLUMN)


def command(name: str | None = None, cls: type[SectionCommand] = SectionCommand) -> Callable[[Any], SectionCommand]:
    """Return a decorator that makes a function a command with sections in its help."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
    return click.command(name, cls=cls, context_settings=settings)


class SizeType(click.ParamType[Size]):
    """`256`, `320x200`, `native` or `auto`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Size:
        """Parse, or fail with the message of `Size.parse`."""
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
        """Parse, or fail with the message of `parse_bytes`."""
        try:
            return value if isinstance(value, int) else parse_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Combine several options into one decorator."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


result_options: Callable[[F], F] = together(
    OUTPUT.option(
        "--format",
        type=click.Choice(["keep", *FORMATS]),
        default=Options().format,
        help="Output format; keep writes each image in its own format where that can be written.",
    ),
    OUTPUT.option(
        "--quality", type=click.IntRange(1, 100), default=EncodeConfig.quality, help="JPEG, WebP and AVIF quality."
    ),
    OUTPUT.option(
        "--depth",
        type=click.Choice([8, 16]),
        default=Options().depth,
        help="Bits per channel; 16 keeps the depth of images that have more than 8, in PNG and TIFF.",
    ),
    SPEED.option(
        "--gpu-encode-from",
        type=click.IntRange(1),
        default=EncodeConfig.gpu_from_pixels,
        metavar="PIXELS",
        help="Encode JPEGs of at least this many pixels on the generator's GPU; by default the CPU encodes all.",
    ),
)
"""Format, quality and depth of the results."""

translate_options: Callable[[F], F] = together(
    SPEED.option(
        "--batch",
        type=click.IntRange(1, 1024),
        default=BatchConfig.size,
        show_default=f"{CPU_BATCH} on a CPU, {GPU_BATCH} on a GPU",
        help="Images per batch.",
    ),
    SPEED.option(
        "--backend",
        type=click.Choice(get_args(BackendName)),
        default=GenerateConfig.backend,
        help="How the generator runs; auto picks and reports why.",
    ),
    SPEED.option(
        "--precision",
        type=click.Choice(get_args(PrecisionName)),
        default=GenerateConfig.precision,
        help="Floating-point type of the generator; auto is the fastest that passes the parity check.",
    ),
    SPEED.option(
        "--trunk",
        type=click.Choice(get_args(TrunkName)),
        default=GenerateConfig.trunk,
        help="Kernels of the residual blocks: PyTorch's; Winograd's, with fewer multiplications, compiled on a CPU; or "
        "Solstice's own in Triton on a GPU, not yet measured. auto is winograd in bf16 on a CPU without AMX and else "
        "torch.",
    ),
    SPEED.option(
        "--cuda-graph",
        is_flag=True,
        help="On a GPU, launch all kernels of a batch at once; helps where a small batch leaves the GPU idle.",
    ),
    SPEED.option(
        "--device",
        default=GenerateConfig.device,
        metavar="DEVICE",
        help="Device of the generator: cpu, cuda or cuda:N; auto is a GPU if there is one.",
    ),
    SPEED.option(
        "--memory",
        type=MemoryType(),
        default=None,
        metavar="SIZE",
        show_default="half of what is free",
        help="Memory for the generator, such as 6G; larger images are translated in bands, with the same result.",
    ),
    SPEED.option(
        "--decode",
        type=click.Choice(["auto", "cpu"]),
        default=DecodeConfig.jpegs,
        help="Where baseline JPEGs are decoded; auto is the generator's GPU if it runs on one.",
    ),
    INPUT.option(
        "--max-output-pixels",
        type=click.IntRange(1),
        default=DecodeConfig.max_output_pixels,
        help="Refuse to enlarge an image to more pixels.",
    ),
    INPUT.option(
        "--max-pixels", type=click.IntRange(1), default=DecodeConfig.max_pixels, help="Refuse images with more pixels."
    ),
    INPUT.option("--allow-damaged", is_flag=True, help="Translate JPEGs with damaged data instead of refusing them."),
)
"""How images are decoded and translated."""

metrics_options: Callable[[F], F] = together(
    MONITORING.option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        metavar="PORT",
        help="Serve /metrics, /healthz and /readyz on this port; 0 takes a free one.",
    ),
    MONITORING.option("--metrics-host", default=LOOPBACK, metavar="HOST", help="Address to serve them on."),
)
"""Where Prometheus finds this process."""
