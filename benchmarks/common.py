"""What the benchmarks share: the machine in words, ceilings, photos to work on, medians."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from engine.config import num_cores
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import save_generator
from engine.system.device import has_bf16


def machine() -> dict[str, Any]:
    """Say what this machine is and which versions run on it."""
    return {
        "cpu": _cpu_name(),
        "cores": num_cores(),
        "bf16": has_bf16(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def matmul_gflops(dtype: torch.dtype, side: int = 2048, repeats: int = 5) -> float:
    """Measure the rate of a large matrix product: the ceiling for everything that multiplies."""
    left, right = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    times_s = [seconds(lambda: left @ right) for _ in range(repeats + 1)][1:]
    return float(2 * side**3 / min(times_s) / 1e9)


def generator_gflop(arch: Architecture, width: int, height: int) -> float:
    """Count the arithmetic of one image, in GFLOP (a multiplication and an addition are two)."""
    ngf = arch.ngf
    per_pixel: float = 2 * 49 * 3 * ngf  # 7x7 at both ends
    per_pixel += 2 * 9 * 2 * ngf * ngf / 4 + 2 * 9 * 8 * ngf * ngf / 16  # strided down …
    per_pixel += 2 * 9 * 16 * ngf * ngf / 16 * arch.blocks * 2  # residual blocks at a quarter
    per_pixel += 2 * 9 * 8 * ngf * ngf / 16 + 2 * 9 * 2 * ngf * ngf / 4  # … and up again
    per_pixel += 2 * 49 * 3 * ngf
    return per_pixel * width * height / 1e9


def seconds(work: Callable[[], object]) -> float:
    """Time one call by the wall clock."""
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def spread(values: list[float]) -> dict[str, float]:
    """Summarise as minimum, median and maximum."""
    return {
        "min": round(min(values), 4),
        "median": round(statistics.median(values), 4),
        "max": round(max(values), 4),
    }


def make_photos(folder: Path, count: int, width: int = 256, height: int = 256, seed: int = 0) -> None:
    """Write `count` JPEGs that compress like photographs: smooth shapes under fine grain, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    for i in range(count):
        coarse = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = random.normal(0, 9, (height, width, 1)).astype(np.int16)
        photo = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        Image.fromarray(photo).save(folder / f"{i:06d}.jpg", quality=90)


def make_model(path: Path, ngf: int = 64, blocks: int = 9, seed: int = 0) -> Path:
    """Write a generator with random weights: its speed does not depend on what it has learnt."""
    torch.manual_seed(seed)
    arch = Architecture(ngf=ngf, blocks=blocks)
    save_generator(path, ResnetGenerator(arch), Card(name=path.stem, architecture=arch), dtype=torch.float32)
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run this Python with `arguments` to its end; raises on any exit code but 0."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def report(name: str, result: dict[str, Any]) -> None:
    """Print the result as the last line, in JSON."""
    print(json.dumps({"benchmark": name, "machine": machine(), **result}))


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
