"""The generator alone: start-up, rate by batch and by size, and what it gains over the published way to run it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.bench.ceilings import Machine, generator_gflop
from engine.bench.config import Effort
from engine.bench.timing import alternate, rate
from engine.config import CPU_BATCH, GPU_BATCH, GenerateConfig
from engine.model.card import Architecture
from engine.model.weights import Generator
from engine.runtime.backends.eager import EagerBackend
from engine.runtime.cache import PackageCache, default_cache
from engine.runtime.rates import batches_in_flight_for
from engine.runtime.select import buildable, measured_rates
from engine.runtime.translator import BatchTranslator
from engine.system.device import choose_device

SIDE = 256
"""Pixels; the size at which CycleGAN generators are compared."""


@dataclass(frozen=True)
class Started:
    """A generator ready to translate, and what its start took."""

    translator: BatchTranslator
    backend_s: float
    """Choosing the backend: loading its package, or compiling it."""
    first_batch_s: float
    """Translating the first batch, which warms up memory and kernels."""
    compiled: bool
    """Whether this start compiled the generator, which happens once per model and machine."""

    def to_document(self) -> dict[str, Any]:
        """Return the seconds, and which backend was chosen and why."""
        return {
            "backend": self.translator.reason,
            "backend_s": round(self.backend_s, 3),
            "compiled": self.compiled,
            "first_batch_s": round(self.first_batch_s, 3),
        }


def settled(generator: Generator, config: GenerateConfig) -> GenerateConfig:
    """Return `config` with the backend that `auto` would use in the end.

    On a CPU, `auto` begins with PyTorch's own kernels and compiles while a run goes on, which is no state to measure.
    """
    device = choose_device(config.device)
    packages = PackageCache(config.cache or default_cache())
    compiled = buildable(device)
    if config.backend != "auto" or not compiled or measured_rates(generator, config, device, packages):
        return config
    return replace(config, backend=compiled[0])  # type: ignore[arg-type]  # names are those of the literal


def start(generator: Generator, config: GenerateConfig, device: torch.device) -> Started:
    """Choose the backend and translate one batch, each timed; raises `SetupError` as `BatchTranslator` does."""
    cache = config.cache or default_cache()
    packages = _packages(cache)
    started_s = time.perf_counter()
    translator = BatchTranslator(generator, config)
    ready_s = time.perf_counter()
    translator(random_pixels(default_batch(device), SIDE))
    ended_s = time.perf_counter()
    return Started(translator, ready_s - started_s, ended_s - ready_s, bool(_packages(cache) - packages))


def measure_generator(
    generator: Generator, translator: BatchTranslator, machine: Machine, effort: Effort, sides: tuple[int, ...]
) -> dict[str, Any]:
    """Measure the rate by batch at 256x256 and by size, alternated with the ceiling and the published way.

    The published way is eager fp32 with one image at a time, as the reference implementation's test script runs it.
    """
    arch = generator.card.architecture
    device, measured_s = machine.device, effort.measured_s
    threads = batches_in_flight_for(device)
    eager = EagerBackend(generator, "fp32", device)
    gflop = generator_gflop(arch, SIDE, SIDE)
    works: dict[str, Callable[[], float]] = {
        "ceiling": lambda: machine.convolution_tflops(arch, default_batch(device)) * 1e3 / gflop,
        "reference": lambda: images_per_s(eager, 1, SIDE, 1, measured_s),
    }
    by_batch, by_side = [(batch, SIDE) for batch in effort.batches], [(batch_at(side, device), side) for side in sides]
    for batch, side in (*by_batch, *by_side):  # what both ask for is measured once
        works[f"{batch} of {side}"] = partial(images_per_s, translator, batch, side, threads, measured_s)
    rates = alternate(works, effort.rounds)
    best = max((rates[f"{batch} of {SIDE}"] for batch in effort.batches), key=lambda spread: spread.median)
    return {
        "gflop_per_image": round(gflop, 2),
        "ceiling_images_per_s": rates["ceiling"].to_document(),
        "reference_images_per_s": rates["reference"].to_document(),
        "best_images_per_s": best.to_document(),
        "share_of_ceiling": best.over(rates["ceiling"]).to_document(),
        "times_reference": best.over(rates["reference"]).to_document(),
        "by_batch": [
            {"batch": batch, "images_per_s": rates[f"{batch} of {side}"].to_document()} for batch, side in by_batch
        ],
        "by_side": [
            {
                "side": side,
                "batch": batch,
                "images_per_s": rates[f"{batch} of {side}"].to_document(),
                "mp_per_s": rates[f"{batch} of {side}"].scaled(side * side / 1e6).to_document(),
            }
            for batch, side in by_side
        ],
    }


def images_per_s(
    translate: Callable[[Tensor], Tensor], batch: int, side: int, threads: int, measured_s: float
) -> float:
    """Measure `translate` on random pixels, from and to CPU memory, called from `threads` threads."""
    return batch * rate(translate, [random_pixels(batch, side)] * threads, threads, measured_s)


def random_pixels(batch: int, height: int, width: int | None = None) -> Tensor:
    """Return uint8 [batch, height, width, 3]; `width` is `height` where it is left out."""
    return torch.randint(0, 256, (batch, height, width or height, 3), dtype=torch.uint8)


def default_batch(device: torch.device) -> int:
    """Return the batch size that `solstice convert` takes by default."""
    return GPU_BATCH if device.type == "cuda" else CPU_BATCH


def batch_at(side: int, device: torch.device) -> int:
    """Return a batch for images of `side` x `side` pixels: the default, or as many pixels as that has at 256x256."""
    batch = default_batch(device)
    return max(1, min(batch, batch * SIDE**2 // side**2))


def network(arch: Architecture) -> dict[str, Any]:
    """Describe the measured network."""
    return {"blocks": arch.blocks, "ngf": arch.ngf, "upsample": arch.upsample}


def _packages(cache: Path) -> set[Path]:
    return set(cache.rglob("*.pt2")) if cache.is_dir() else set()
