"""Options that several commands have, each written once; their defaults are the configuration's fields."""

from __future__ import annotations

from collections.abc import Callable
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
)
from engine.options import Options, Size
from engine.system.memory import parse_bytes

F = TypeVar("F", bound=Callable[..., Any])


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


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Make one decorator of several options, which the help shows in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


result_options: Callable[[F], F] = together(
    click.option("--format", type=click.Choice(["keep", *FORMATS]), default=Options().format, show_default=True),
    click.option("--quality", type=click.IntRange(1, 100), default=EncodeConfig.quality, show_default=True),
    click.option(
        "--gpu-encode-from",
        type=click.IntRange(1),
        default=EncodeConfig.gpu_from_pixels,
        metavar="PIXELS",
        help="Encode JPEGs of at least so many pixels on the generator's GPU; by default the CPU encodes all.",
    ),
)
"""What the results' files are."""

translate_options: Callable[[F], F] = together(
    click.option(
        "--batch",
        type=click.IntRange(1, 1024),
        default=BatchConfig.size,
        show_default=f"{CPU_BATCH} on a CPU, {GPU_BATCH} on a GPU",
        help="Images that are translated together.",
    ),
    click.option(
        "--backend", type=click.Choice(get_args(BackendName)), default=GenerateConfig.backend, show_default=True
    ),
    click.option(
        "--precision", type=click.Choice(get_args(PrecisionName)), default=GenerateConfig.precision, show_default=True
    ),
    click.option("--device", default=GenerateConfig.device, show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--memory",
        type=MemoryType(),
        default=None,
        metavar="SIZE",
        help="Memory for the generator, such as 6G; larger photos go in bands. Default: half of what is free.",
    ),
    click.option(
        "--decode",
        type=click.Choice(["auto", "cpu"]),
        default=DecodeConfig.jpegs,
        show_default=True,
        help="Where baseline JPEGs are decoded: on the generator's GPU where there is one, or on the CPU.",
    ),
    click.option("--max-pixels", type=click.IntRange(1), default=DecodeConfig.max_pixels, show_default=True),
    click.option("--allow-damaged", is_flag=True, help="Translate JPEGs with damaged data instead of refusing them."),
)
"""How images are decoded and translated."""

metrics_options: Callable[[F], F] = together(
    click.option(
        "--metrics-port",
        type=click.IntRange(0, 65535),
        help="Serve /metrics, /healthz and /readyz at this port; 0 takes a free one.",
    ),
    click.option("--metrics-host", default=LOOPBACK, show_default=True, help="Address to serve them at."),
)
"""Where Prometheus finds this process."""
