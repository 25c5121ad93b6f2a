"""The C++ compiler behind `torch.compile` on a CPU, and the flags it needs to compile gradients correctly."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import torch

GCC_FLAGS = "-fno-tree-slp-vectorize"
"""With SLP vectorisation, g++ 12.2 miscompiles the transposed bf16 loads of TorchInductor (`transpose_mxn`) on
processors that it has no tuning for, such as Sapphire Rapids: gradients become NaN, or finite and wrong by half."""


def find_compiler() -> str | None:
    """Return the path of the C++ compiler that TorchInductor uses, or None if there is none."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


def is_gcc(compiler: str) -> bool:
    """Return whether `compiler` is GNU C++; it alone accepts `GCC_FLAGS`."""
    return "Free Software Foundation" in _run(compiler, "--version")


def describe_compiler(device: torch.device) -> str:
    """Return what compiles kernels for `device`, with version and added flags, for a model card."""
    if device.type == "cuda":
        return f"triton {metadata.version('triton')}"
    compiler = find_compiler()
    if compiler is None:
        return "none"
    name = _run(compiler, "--version").splitlines()[0]
    return f"{name} {GCC_FLAGS}" if is_gcc(compiler) else name


def set_compiler_flags() -> None:
    """Make TorchInductor pass `GCC_FLAGS` to g++, after the architecture that is configured or else `native`.

    The setting is part of TorchInductor's cache keys, so kernels compiled without it are not reused.
    """
    from torch._inductor import config

    compiler = find_compiler()
    march: str | None = config.cpp.march
    if compiler is not None and is_gcc(compiler) and GCC_FLAGS not in (march or ""):
        config.cpp.march = f"{march or 'native'} {GCC_FLAGS}"


def describe_processor(device: torch.device) -> str:
    """Return the name of the processor or GPU that trains, for a model card."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
