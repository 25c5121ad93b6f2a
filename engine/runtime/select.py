"""Which backend translates: the one asked for, or else the one measured fastest, or else the one likely to be.

Whatever is compiled or rounds more than fp32 goes through the parity gate before it is used; when it is refused, or
cannot be built, the next one takes its place and a warning says so. Eager fp32, which the gate compares with, is always
the last.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from engine.config import GenerateConfig
from engine.errors import BackendUnavailable, SetupError
from engine.model.weights import Generator
from engine.runtime.backends import inductor, tensorrt
from engine.runtime.backends.base import Backend
from engine.runtime.backends.eager import EagerBackend
from engine.runtime.backends.inductor import InductorBackend
from engine.runtime.backends.tensorrt import Profile, TensorRTBackend
from engine.runtime.cache import PackageCache, default_cache
from engine.runtime.parity import check
from engine.system.device import choose_device, fastest_precision

log = logging.getLogger(__name__)

# Compiling takes about as long as translating this much without: 500 photos of 256x256.
_WORTH_COMPILING_PIXELS = 500 * 256 * 256


@dataclass(frozen=True)
class Choice:
    """A backend in a precision, and why it would be taken."""

    name: str
    precision: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


def choose_backend(generator: Generator, config: GenerateConfig) -> tuple[Backend, str]:
    """Pick the backend for `config` on this machine; gives it and one sentence about why.

    Raises `SetupError` when the backend or device asked for is not to be had here.
    """
    device = choose_device(config.device)
    packages = PackageCache(config.cache or default_cache())
    refused: list[str] = []
    for choice in choices(generator, config, device, packages):
        try:
            backend = build(choice, generator, config, device, packages)
        except BackendUnavailable as error:
            if choice.name == config.backend:
                raise
            log.warning("%s Another backend is taken.", error)
            refused.append(f"{choice} could not be built")
            continue
        parity = check(generator, backend, packages)
        if parity.passed:
            return backend, f"{choice} on {device}: {'; '.join([*refused, choice.why])}"
        log.warning(
            "Backend %s does not agree with the fp32 module on this machine (%s) and is not used.", choice, parity
        )
        refused.append(f"{choice} was refused ({parity})")
    raise SetupError("No backend translates this generator correctly here; --backend eager --precision fp32 should.")


def choices(generator: Generator, config: GenerateConfig, device: torch.device, packages: PackageCache) -> list[Choice]:
    """List what to try, best first; the last is eager fp32 unless eager was asked for."""
    last = Choice("eager", "fp32", "the module as it is")
    if config.backend == "eager":  # for the published result: in fp32, unless asked otherwise
        return [Choice("eager", "fp32" if config.precision == "auto" else config.precision, "as asked")]
    if config.backend != "auto":
        return [Choice(config.backend, precision_of(config, device), "as asked"), last]
    measured = measured_rates(generator, config, device, packages)
    if measured:
        return [*_by_rate(measured, config, device), last]
    compiled = [Choice(name, precision_of(config, device), "likely the fastest") for name in buildable(device)]
    built = [choice for choice in compiled if packages.get(package_key(choice, generator, config, device))]
    if built:
        return [*(replace(choice, why="already compiled for this machine") for choice in built), last]
    eager = Choice("eager", precision_of(config, device))
    if config.expected_pixels is not None and config.expected_pixels < _WORTH_COMPILING_PIXELS:
        return _distinct(replace(eager, why="too few images to be worth compiling for"), last)
    if not compiled:
        log.warning("No C++ compiler found: running without compiling, slower (install g++ to change that).")
        return _distinct(replace(eager, why="no C++ compiler for a faster backend"), last)
    return [*compiled, last]


def precision_of(config: GenerateConfig, device: torch.device) -> str:
    """Give the precision asked for, or the fastest that is likely to pass the gate."""
    return fastest_precision(device) if config.precision == "auto" else config.precision


def profiles_for(config: GenerateConfig) -> tuple[Profile, ...]:
    """Give the TensorRT profiles for the sizes that the images will have."""
    return tuple(Profile.for_side(side) for side in config.sides)


def buildable(device: torch.device) -> list[str]:
    """Name the compiled backends that what is installed here can build for `device`, the likely fastest first."""
    names = []
    if device.type == "cuda" and tensorrt.installed():
        names.append(TensorRTBackend.name)
    if inductor.find_compiler() is not None:
        names.append(InductorBackend.name)
    return names


def build(
    choice: Choice, generator: Generator, config: GenerateConfig, device: torch.device, packages: PackageCache
) -> Backend:
    """Make the backend, compiling when it is not in the registry; raises `BackendUnavailable`."""
    if choice.name == EagerBackend.name:
        return EagerBackend(generator, choice.precision, device)
    if choice.name == InductorBackend.name:
        return InductorBackend(generator, choice.precision, device, packages)
    if device.type != "cuda":
        raise BackendUnavailable("Backend tensorrt needs an NVIDIA GPU; use --backend inductor or --device cuda.")
    return TensorRTBackend(generator, choice.precision, device, packages, profiles_for(config))


def package_key(
    choice: Choice, generator: Generator, config: GenerateConfig, device: torch.device
) -> Mapping[str, str]:
    """Give the key of a compiled backend's entry in the registry; of several engines, the first one's."""
    if choice.name == TensorRTBackend.name:
        return tensorrt.engine_key(generator, choice.precision, device, profiles_for(config)[0])
    return inductor.package_key(generator, choice.precision, device)


def measured_rates(
    generator: Generator, config: GenerateConfig, device: torch.device, packages: PackageCache
) -> dict[str, float]:
    """Images/s by backend, as `solstice compile` measured them here; empty when it never did."""
    usable = buildable(device)
    for name in usable:
        choice = Choice(name, precision_of(config, device))
        rates = packages.notes(package_key(choice, generator, config, device)).get("rates", {})
        found = {backend: rate for backend, rate in rates.items() if backend in ("eager", *usable)}
        if found:
            return found
    return {}


def _distinct(first: Choice, last: Choice) -> list[Choice]:
    return [first] if str(first) == str(last) else [first, last]


def _by_rate(measured: dict[str, float], config: GenerateConfig, device: torch.device) -> list[Choice]:
    return [
        Choice(name, precision_of(config, device), f"measured fastest here, {rate:.1f} images/s")
        for name, rate in sorted(measured.items(), key=lambda item: -item[1])
    ]
