"""Measure how fast each backend translates on this machine, and store the rates for `auto`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import CPU_BATCH, GPU_BATCH, GPU_BATCHES_IN_FLIGHT, GenerateConfig
from engine.errors import BackendUnavailable
from engine.model.weights import Generator
from engine.runtime.backends.base import Backend
from engine.runtime.backends.tensorrt import Profile
from engine.runtime.cache import PackageCache, default_cache
from engine.runtime.parity import check
from engine.runtime.select import Choice, build, ladder, measurable
from engine.system.device import choose_device

log = logging.getLogger(__name__)

_MEASURED_S = 1.0


@dataclass(frozen=True, kw_only=True)
class BackendRate:
    """Rate of one backend at one size."""

    backend: str
    precision: str
    side: int
    """Side of the square images in pixels."""
    batch: int
    images_per_s: float | None
    """None if the backend is not used."""
    note: str
    """Result of the parity check, or why the backend is not used."""


def measure_backends(
    generator: Generator, config: GenerateConfig, names: tuple[str, ...] = ()
) -> Iterator[BackendRate]:
    """Compile, check and time the backends `names`, or all available ones, yielding rates as they are measured.

    Afterwards the notes of each compiled package hold the rates of all backends at the first of `config.sides`.
    """
    device = choose_device(config.device)
    packages = PackageCache(config.cache or default_cache())
    rates: dict[str, float] = {}
    compiled: list[Backend] = []
    candidates = (choice for name in names or measurable(device) for choice in ladder(name, config, device, ""))
    for choice in candidates:
        name = choice.name
        if name in rates:
            continue  # in a faster precision
        try:
            backend = build(choice, generator, config, device, packages)
        except BackendUnavailable as error:
            rates[name] = 0.0
            yield from (_unused(choice, side, config, str(error)) for side in config.sides)
            continue
        parity = check(generator, backend, packages)
        if not parity.passed:
            yield from (_unused(choice, side, config, f"refused: {parity}") for side in config.sides)
            continue
        if backend.parity_cases:
            compiled.append(backend)
        for side in config.sides:
            batch = batch_for(side, device, config.tuned_batch)
            rate = images_per_s(backend, batch, side, threads=batches_in_flight_for(device))
            rates.setdefault(name, rate)
            note = str(parity) if backend.parity_cases else "the reference"
            yield BackendRate(
                backend=name, precision=choice.precision, side=side, batch=batch, images_per_s=rate, note=note
            )
    rates = {name: rate for name, rate in rates.items() if rate}
    for backend in compiled:
        for case in backend.parity_cases:
            packages.note(case.key, rates=rates)


def images_per_s(
    translate: Callable[[Tensor], Tensor], batch: int, side: int, measured_s: float = _MEASURED_S, threads: int = 1
) -> float:
    """Return the rate of `translate` on random pixels called from `threads` threads, after one warm-up call.

    Each thread calls for `measured_s` seconds and at least twice.
    """
    pixels_NHWC = torch.randint(0, 256, (batch, side, side, 3), dtype=torch.uint8)
    translate(pixels_NHWC)

    def count_calls(until_s: float) -> int:
        calls = 0
        while calls < 2 or time.perf_counter() < until_s:
            translate(pixels_NHWC)
            calls += 1
        return calls

    started_s = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        calls = sum(pool.map(count_calls, [started_s + measured_s] * threads))
    return calls * batch / (time.perf_counter() - started_s)


def batches_in_flight_for(device: torch.device) -> int:
    """Return how many batches to translate concurrently."""
    return GPU_BATCHES_IN_FLIGHT if device.type == "cuda" else 1


def batch_for(side: int, device: torch.device, tuned_batch: int = GPU_BATCH) -> int:
    """Return a batch size that fills the device at this size; on a GPU as many pixels as `tuned_batch` of 256x256."""
    return Profile.for_side(side, tuned_batch).batch if device.type == "cuda" else CPU_BATCH


def _unused(choice: Choice, side: int, config: GenerateConfig, why: str) -> BackendRate:
    log.warning("Backend %s is not used: %s", choice, why)
    return BackendRate(
        backend=choice.name,
        precision=choice.precision,
        side=side,
        batch=batch_for(side, choose_device(config.device), config.tuned_batch),
        images_per_s=None,
        note=why,
    )
