"""How fast each backend translates on this machine: compile, check, time, and keep the table where `auto` looks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config import CPU_BATCH, LANES, GenerateConfig
from engine.errors import BackendUnavailable
from engine.model.weights import Generator
from engine.runtime.backends.base import Backend
from engine.runtime.backends.tensorrt import Profile
from engine.runtime.cache import ArtefactStore, default_cache
from engine.runtime.parity import check
from engine.runtime.select import Choice, build, buildable, precision_of
from engine.system.device import choose_device

log = logging.getLogger(__name__)

_MEASURED_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """One backend at one size: a line of the table."""

    backend: str
    precision: str
    side: int
    """Pixels, of square images."""
    batch: int
    images_per_s: float | None
    """None when the backend is not used."""
    note: str
    """What the gate found, or why the backend is not used."""


def measure_backends(generator: Generator, config: GenerateConfig, names: tuple[str, ...] = ()) -> Iterator[Row]:
    """Compile, check and time the backends `names`, or all that this machine has; gives rows as they are ready.

    At the end each compiled backend's entry in the registry has the rates of all, at the first of `config.sides`.
    """
    device = choose_device(config.device)
    artefacts = ArtefactStore(config.cache or default_cache())
    rates: dict[str, float] = {}
    compiled: list[Backend] = []
    for name in names or ("eager", *buildable(device)):
        choice = Choice(name, precision_of(config, device))
        try:
            backend = build(choice, generator, config, device, artefacts)
        except BackendUnavailable as error:
            yield from (_unused(choice, side, device, str(error)) for side in config.sides)
            continue
        verdict = check(generator, backend, artefacts)
        if not verdict.passed:
            yield from (_unused(choice, side, device, f"refused: {verdict}") for side in config.sides)
            continue
        if backend.entries:
            compiled.append(backend)
        for side in config.sides:
            batch = batch_for(side, device)
            rate = images_per_s(backend, batch, side, lanes=lanes_for(device))
            rates.setdefault(name, rate)
            note = str(verdict) if backend.entries else "the reference"
            yield Row(backend=name, precision=choice.precision, side=side, batch=batch, images_per_s=rate, note=note)
    for backend in compiled:
        for entry in backend.entries:
            artefacts.note(entry.key, rates=rates)


def images_per_s(
    translate: Callable[[Tensor], Tensor], batch: int, side: int, measured_s: float = _MEASURED_S, lanes: int = 1
) -> float:
    """Time `translate` on random pixels from `lanes` threads, after a call to warm up.

    Each thread calls for `measured_s` and at least twice.
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
    with ThreadPoolExecutor(lanes) as pool:
        calls = sum(pool.map(count_calls, [started_s + measured_s] * lanes))
    return calls * batch / (time.perf_counter() - started_s)


def lanes_for(device: torch.device) -> int:
    """Give how many batches are to be under way at once."""
    return LANES if device.type == "cuda" else 1


def batch_for(side: int, device: torch.device) -> int:
    """Give a batch that fills the device at this size."""
    return Profile.for_side(side).batch if device.type == "cuda" else CPU_BATCH


def _unused(choice: Choice, side: int, device: torch.device, why: str) -> Row:
    log.warning("Backend %s is not used: %s", choice, why)
    return Row(
        backend=choice.name,
        precision=choice.precision,
        side=side,
        batch=batch_for(side, device),
        images_per_s=None,
        note=why,
    )
