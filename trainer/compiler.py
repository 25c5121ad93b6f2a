"""The C++ compiler behind `torch.compile` on a CPU, and the flags it needs to compile gradients correctly."""

from __future__ import annotations

from importlib import metadata

import torch

from engine.system.compiler import GCC_FLAGS, compiler_version, find_compiler, flag_options, is_gcc
from engine.system.device import cpu_name


def describe_compiler(device: torch.device) -> str:
    """Return what compiles kernels for `device`, with version and added flags, for a model card."""
    if device.type == "cuda":
        return f"triton {metadata.version('triton')}"
    compiler = find_compiler()
    if compiler is None:
        return "none"
    name = compiler_version(compiler)
    return f"{name} {GCC_FLAGS}" if is_gcc(compiler) else name


def set_compiler_flags() -> None:
    """Make TorchInductor pass `GCC_FLAGS` to g++, after the architecture that is configured or else `native`.

    The setting is part of TorchInductor's cache keys, so kernels compiled without it are not reused.
    """
    from torch._inductor import config

    compiler = find_compiler()
    march: str | None = getattr(config.cpp, "march", None)
    if compiler is not None and is_gcc(compiler) and GCC_FLAGS not in (march or ""):
        for name, value in flag_options(f"{march or 'native'} {GCC_FLAGS}").items():
            setattr(config, name, value)


def describe_processor(device: torch.device) -> str:
    """Return the name of the processor or GPU that trains, for a model card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_name()
