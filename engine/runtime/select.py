"""Choose the backend: the requested one, or else the one measured fastest, or else the one likely to be.

Every backend but eager fp32 must pass the parity check, which compares it with the fp32 module. One that fails or
cannot be built is replaced by the next: the same backend with its first and last layers in fp32, then in fp32. Warnings
and the reason for the choice state which ones were refused and why.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from engine.config import GenerateConfig
from engine.errors import BackendUnavailable, SetupError
from engine.model import winograd
from engine.model.card import Architecture
from engine.model.weights import Generator
from engine.runtime.backends import inductor, openvino, tensorrt
from engine.runtime.backends.base import PRECISIONS, Backend, KernelOptions, Trunk
from engine.runtime.backends.eager import EagerBackend
from engine.runtime.backends.inductor import InductorBackend
from engine.runtime.backends.openvino import OpenVINOBackend
from engine.runtime.backends.tensorrt import Profile, TensorRTBackend
from engine.runtime.cache import PackageCache, default_cache
from engine.runtime.parity import check
from engine.system.compiler import find_compiler
from engine.system.device import choose_device, fastest_precision, has_amx

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """A backend in a precision, and why it is chosen."""

    name: str
    precision: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.precision}"


def choose_backend(
    generator: Generator, config: GenerateConfig, candidates: list[Choice] | None = None
) -> tuple[Backend, str]:
    """Return the first of `candidates` that passes the parity check, and a sentence on why it was chosen.

    The default candidates are `choices`. Raises `SetupError` if the requested backend or device is not available.
    """
    device = choose_device(config.device)
    packages = PackageCache(config.cache or default_cache())
    refused: list[str] = []
    for choice in choices(generator, config, device, packages) if candidates is None else candidates:
        try:
            backend = build(choice, generator, config, device, packages)
        except BackendUnavailable as error:
            if choice.name == config.backend:
                raise
            log.warning("%s Another backend is taken.", error)
            refused.append(f"{choice} could not be built")
            continue
        result = check(generator, backend, packages)
        if result.passed:
            trunk = kernel_options(choice, config, device, generator.module.arch).trunk
            kernels = "" if trunk == "torch" else f" with trunk {trunk}"
            return backend, f"{choice}{kernels} on {device}: {'; '.join([*refused, choice.why])}"
        log.warning(
            "Backend %s does not agree with the fp32 module on this machine (%s) and is not used.", choice, result
        )
        refused.append(f"{choice} was refused ({result})")
    raise SetupError("No backend translates this generator correctly here; --backend eager --precision fp32 should.")


def choices(generator: Generator, config: GenerateConfig, device: torch.device, packages: PackageCache) -> list[Choice]:
    """Return what to try, best first; the last is eager fp32 unless eager was requested.

    On a CPU, `auto` compiles nothing here: see `engine.runtime.background`.
    """
    last = Choice("eager", "fp32", "nothing faster passed the parity check")
    if config.backend == "eager":  # the published result, so fp32 unless requested otherwise
        return [Choice("eager", "fp32" if config.precision == "auto" else config.precision, "as requested")]
    if config.backend != "auto":
        return [*ladder(config.backend, config, device, "as requested"), last]
    measured = measured_rates(generator, config, device, packages)
    if measured:
        by_rate = sorted(measured.items(), key=lambda item: -item[1])
        ladders = (
            ladder(name, config, device, f"measured fastest here, {rate:.1f} images/s") for name, rate in by_rate
        )
        return _distinct([choice for ladder_ in ladders for choice in ladder_] + [last])
    compiled = [choice for name in runnable(device) for choice in ladder(name, config, device, "")]
    built = [choice for choice in compiled if is_built(choice, generator, config, device, packages)]
    if built:
        built = [replace(choice, why="already compiled for this machine") for choice in built]
        return _distinct([*built, *ladder("eager", config, device, "PyTorch's own kernels"), last])
    if device.type == "cuda" and buildable(device):
        likely = [choice for name in buildable(device) for choice in ladder(name, config, device, "likely the fastest")]
        return _distinct([*likely, last])
    if not buildable(device):
        log.warning("No C++ compiler found: running without compiling, slower (install g++ to change that).")
    why = "nothing is compiled yet" if buildable(device) else "no C++ compiler for a faster backend"
    return _distinct([*ladder("eager", config, device, why), last])


def ladder(name: str, config: GenerateConfig, device: torch.device, why: str) -> list[Choice]:
    """Return a backend in the requested precision, or in the fastest and its fallbacks down to fp32."""
    precision = precision_of(config, device)
    if config.precision != "auto" or precision == "fp32" or name == TensorRTBackend.name:
        return [Choice(name, precision, why)]
    if name == OpenVINOBackend.name:
        return [Choice(name, precision, why), Choice(name, "fp32", why)]
    return [Choice(name, precision, why), Choice(name, f"{precision}-mixed", why), Choice(name, "fp32", why)]


def precision_of(config: GenerateConfig, device: torch.device) -> str:
    """Return the requested precision, or the fastest that the device has hardware for."""
    return fastest_precision(device) if config.precision == "auto" else config.precision


def profiles_for(config: GenerateConfig) -> tuple[Profile, ...]:
    """Return the TensorRT profiles for the configured image sizes."""
    return tuple(Profile.for_side(side, config.tuned_batch) for side in config.sides)


def buildable(device: torch.device) -> list[str]:
    """Return the compiled backends that can be built for `device` with the installed software, likely fastest first."""
    names = []
    if device.type == "cuda" and tensorrt.installed():
        names.append(TensorRTBackend.name)
    if find_compiler() is not None:
        names.append(InductorBackend.name)
    return names


def runnable(device: torch.device) -> list[str]:
    """Return the compiled backends whose packages run on `device`; those of inductor need no compiler."""
    return [*(name for name in buildable(device) if name != InductorBackend.name), InductorBackend.name]


def measurable(device: torch.device) -> list[str]:
    """Return all backends that `solstice compile` measures; OpenVINO is used by `auto` only where it was fastest."""
    optional = [OpenVINOBackend.name] if device.type == "cpu" and openvino.is_installed() else []
    return [EagerBackend.name, *buildable(device), *optional]


def build(
    choice: Choice, generator: Generator, config: GenerateConfig, device: torch.device, packages: PackageCache
) -> Backend:
    """Create the backend, compiling what is not in the package cache; raises `BackendUnavailable` if it cannot."""
    options = kernel_options(choice, config, device, generator.module.arch)
    if choice.name == EagerBackend.name:
        return EagerBackend(generator, choice.precision, device, options)
    if choice.name == InductorBackend.name:
        return InductorBackend(generator, choice.precision, device, packages, config.sides, config.tuned_batch, options)
    if choice.name == OpenVINOBackend.name:
        return OpenVINOBackend(generator, choice.precision, device, packages)
    if device.type != "cuda":
        raise BackendUnavailable("Backend tensorrt needs an NVIDIA GPU; use --backend inductor or --device cuda.")
    if config.cuda_graph or config.trunk == "triton":
        log.warning("Backend tensorrt uses neither --cuda-graph nor --trunk; --backend inductor does.")
    return TensorRTBackend(generator, choice.precision, device, packages, profiles_for(config))


def kernel_options(choice: Choice, config: GenerateConfig, device: torch.device, arch: Architecture) -> KernelOptions:
    """Return what is switched on for a choice."""
    graph_pixels = config.tuned_batch * 256 * 256 if config.cuda_graph else 0
    return KernelOptions(_trunk(choice, config, device, arch), graph_pixels)


def _trunk(choice: Choice, config: GenerateConfig, device: torch.device, arch: Architecture) -> Trunk:
    dtype = PRECISIONS[choice.precision].dtype
    if device.type == "cuda":  # fp32, the last resort of a ladder, has PyTorch's trunk
        return "triton" if config.trunk == "triton" and dtype == torch.float16 else "torch"
    # Measured without AMX: faster in bf16, as fast in fp32. With AMX, products take less time than their transforms.
    faster = dtype == torch.bfloat16 and not has_amx()
    wanted = config.trunk == "winograd" or (config.trunk == "auto" and faster)
    return "winograd" if wanted and choice.name == InductorBackend.name and winograd.unfit(arch) is None else "torch"


def check_kernel_options(config: GenerateConfig, device: torch.device, arch: Architecture) -> None:
    """Raise `SetupError` if the configuration asks for what another device, precision or generator has."""
    if config.trunk == "triton" and importlib.util.find_spec("triton") is None:
        raise SetupError(
            "--trunk triton needs Triton, which comes with PyTorch for CUDA; install that or leave it out."
        )
    if device.type != "cuda" and config.trunk == "triton":
        raise SetupError("--trunk triton needs an NVIDIA GPU; leave it out here.")
    if device.type != "cuda" and config.cuda_graph:
        raise SetupError("--cuda-graph needs an NVIDIA GPU; leave it out here.")
    if config.trunk == "triton" and config.precision not in ("auto", "fp16", "fp16-mixed"):
        raise SetupError("--trunk triton computes in fp16; use --precision fp16, or leave one of them out.")
    if config.trunk == "winograd":
        _check_winograd(config, device, arch)
    if config.trunk == "triton":
        from engine.runtime.backends.trunk import unfit  # not at the top: it imports Triton

        need = unfit(arch, torch.float16)
        if need is not None:
            raise SetupError(f"--trunk triton needs {need}; leave it out for this model.")


def _check_winograd(config: GenerateConfig, device: torch.device, arch: Architecture) -> None:
    if device.type != "cpu":
        raise SetupError("--trunk winograd runs on a CPU; leave it out, or use --device cpu.")
    if config.backend not in ("auto", InductorBackend.name):
        raise SetupError(f"--trunk winograd needs --backend inductor, got {config.backend}; leave one of them out.")
    need = winograd.unfit(arch)
    if need is not None:
        raise SetupError(f"--trunk winograd needs {need}; leave it out for this model.")


def is_built(
    choice: Choice, generator: Generator, config: GenerateConfig, device: torch.device, packages: PackageCache
) -> bool:
    """Return whether the package cache holds all packages of a compiled backend."""
    return all(packages.get(key) is not None for key in package_keys(choice, generator, config, device, packages))


def package_keys(
    choice: Choice, generator: Generator, config: GenerateConfig, device: torch.device, packages: PackageCache
) -> list[Mapping[str, str]]:
    """Return the keys of a compiled backend's packages."""
    if choice.name == TensorRTBackend.name:
        return [tensorrt.engine_key(generator, choice.precision, device, profile) for profile in profiles_for(config)]
    if choice.name == OpenVINOBackend.name:
        return [openvino.openvino_key(generator, choice.precision, device)]
    all_bounds = inductor.bounds_for(generator, device, config.sides, config.tuned_batch)
    options = kernel_options(choice, config, device, generator.module.arch)
    keys = (inductor.package_key(generator, choice.precision, device, bounds, options) for bounds in all_bounds)
    return [inductor.stored_key(key, packages) for key in keys]


def measured_rates(
    generator: Generator, config: GenerateConfig, device: torch.device, packages: PackageCache
) -> dict[str, float]:
    """Return images/s by backend as measured by `solstice compile` on this machine; empty if it was not run."""
    usable = {*runnable(device), *measurable(device)} - {EagerBackend.name}
    for choice in (choice for name in sorted(usable) for choice in ladder(name, config, device, "")):
        key, *_ = package_keys(choice, generator, config, device, packages)
        rates = packages.notes(key).get("rates", {})
        found = {backend: rate for backend, rate in rates.items() if backend in ("eager", *usable)}
        if found:
            return found
    return {}


def _distinct(choices: list[Choice]) -> list[Choice]:
    """Drop later choices of the same backend and precision."""
    first: dict[str, Choice] = {}
    for choice in choices:
        first.setdefault(str(choice), choice)
    return list(first.values())
