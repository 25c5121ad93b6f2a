"""What the scripts share: photos and models to measure with, whole processes, and the line of JSON at the end.

Each script measures, prints what it finds as it goes, and ends with one line of JSON, which `benchmarks.run_all` keeps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.bench.ceilings import generator_gflop
from engine.bench.machine import describe_machine, describe_versions
from engine.bench.photos import find_scenes
from engine.bench.timing import Spread
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import save_generator

__all__ = [
    "ProcessUse",
    "generator_gflop",
    "machine",
    "make_model",
    "make_photos",
    "matmul_gflops",
    "measure_process",
    "report",
    "run",
    "seconds",
    "spread",
]


def machine() -> dict[str, Any]:
    """Return this machine and the versions that run on it."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    return {**describe_machine(device), "versions": describe_versions(), "date": time.strftime("%Y-%m-%d")}


def matmul_gflops(dtype: torch.dtype, side: int = 2048, repeats: int = 5) -> float:
    """Return the rate of a large matrix product on the CPU: the best of `repeats`, after one that is not counted."""
    left, right = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    times_s = [seconds(lambda: left @ right) for _ in range(repeats + 1)][1:]
    return float(2 * side**3 / min(times_s) / 1e9)


def seconds(work: Callable[[], object]) -> float:
    """Return the wall-clock time of one call."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def spread(values: list[float]) -> dict[str, Any]:
    """Return median, minimum, maximum and all values, as in the documents of `solstice bench`."""
    return Spread(tuple(values)).to_document()


def make_photos(folder: Path, count: int, width: int = 256, height: int = 256) -> None:
    """Write `count` JPEGs made from the sample photos, all different."""
    find_scenes().write(folder, count, width, height)


def make_model(path: Path, ngf: int = 64, blocks: int = 9, seed: int = 0) -> Path:
    """Write a generator with random weights, which are as fast as any others."""
    torch.manual_seed(seed)
    arch = Architecture(ngf=ngf, blocks=blocks)
    save_generator(path, ResnetGenerator(arch), Card(name=path.stem, architecture=arch), dtype=torch.float32)
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run this Python with `arguments` and wait for it; raises `CalledProcessError` on any exit code but 0."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class ProcessUse:
    """What a whole process took."""

    seconds: float
    """Wall-clock time from its start to its end."""
    cpu_s: float
    peak_bytes: int


def measure_process(command: Sequence[object], cwd: Path | None = None) -> ProcessUse:
    """Run `command` and return what it took; raises `RuntimeError` with its last lines on any exit code but 0."""
    with tempfile.TemporaryFile() as output:
        started_s = time.perf_counter()
        process = subprocess.Popen([*map(str, command)], cwd=cwd, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        elapsed_s = time.perf_counter() - started_s
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            last = output.read().decode(errors="replace").splitlines()[-15:]
            raise RuntimeError("\n".join([f"exit code {process.returncode} of {' '.join(map(str, command))}", *last]))
    return ProcessUse(elapsed_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def report(name: str, result: dict[str, Any]) -> None:
    """Print the result as the last line, in JSON."""
    print(json.dumps({"benchmark": name, "machine": machine(), **result}))
