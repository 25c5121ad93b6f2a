"""Compiled packages beside `torch.compile` with fixed shapes, for the published ResNet and U-Net, in processor time.

Both compute in the fastest precision of the processor, from bytes to bytes, with one thread, in alternated calls.
`torch.compile` gets the published module and compiles it for one batch and size; the package takes every size. Weights
are random.

    python -m benchmarks.generators
    python -m benchmarks.generators --networks unet --batch 4
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import report
from engine.model.card import Architecture, Card
from engine.model.network import build_generator
from engine.model.weights import Generator
from engine.runtime.backends.base import DTYPES, PixelGenerator
from engine.runtime.backends.inductor import InductorBackend
from engine.runtime.cache import PackageCache
from engine.runtime.parity import check
from engine.system.device import fastest_precision

CPU = torch.device("cpu")
NETWORKS = {"resnet": Architecture(), "unet": Architecture(network="unet", norm="batch", bias=False)}
"""Those that the published code trains by default for CycleGAN and pix2pix at 256x256."""


def main() -> None:
    """Parse, compile both ways, measure in turn, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report("generators", {name: measure(NETWORKS[name], arguments) for name in arguments.networks})


def measure(arch: Architecture, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return seconds an image for both, and the result of the parity check of the package."""
    torch.manual_seed(0)
    module = build_generator(arch).eval().requires_grad_(False)
    generator = Generator(module, Card(name=arch.network, architecture=arch), arch.network)
    precision = fastest_precision(CPU)
    shape = (arguments.batch, arguments.side, arguments.side, 3)
    pixels_NHWC = torch.randint(0, 256, shape, dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        packages = PackageCache(Path(folder) / "cache")
        package = InductorBackend(generator, precision, CPU, packages)
        fixed = torch.compile(PixelGenerator(copy.deepcopy(module), DTYPES[precision]), dynamic=False)
        runs: dict[str, Callable[[Tensor], Tensor]] = {"package": package, "torch.compile": fixed}
        seconds = {name: [_seconds(run, pixels_NHWC)] for name, run in runs.items()}
        for _ in range(arguments.rounds):
            for name, run in runs.items():
                seconds[name].append(_seconds(run, pixels_NHWC))
        parity = str(check(generator, package, packages))
    medians = {name: statistics.median(times[1:]) / arguments.batch for name, times in seconds.items()}
    ratio = medians["torch.compile"] / medians["package"]
    print(f"{arch.network} {precision}: {medians}, {ratio:.2f} times as fast, parity {parity}", flush=True)
    ranges = {name: [min(times[1:]), max(times[1:])] for name, times in seconds.items()}
    return {"precision": precision, "seconds": medians, "ranges": ranges, "ratio": ratio, "parity": parity}


def _seconds(run: Callable[[Tensor], Tensor], pixels_NHWC: Tensor) -> float:
    started = time.process_time()
    run(pixels_NHWC)
    return time.process_time() - started


if __name__ == "__main__":
    main()
