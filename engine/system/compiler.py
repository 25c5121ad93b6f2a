"""The C++ compiler behind TorchInductor on a CPU, and the flags that it needs to compile correctly."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache

GCC_FLAGS = "-fno-tree-slp-vectorize"
"""With SLP vectorisation, g++ 12.2 miscompiles the transposed bf16 loads of TorchInductor (`transpose_mxn`) on
processors that it has no tuning for, such as Sapphire Rapids: values become NaN, or finite and wrong by half."""


def find_compiler() -> str | None:
    """Return the path of the C++ compiler that TorchInductor uses, or None if there is none."""
    return shutil.which(os.environ.get("CXX", "g++"))


@cache
def compiler_version(compiler: str) -> str:
    """Return the first line of `compiler --version`, or the path if it prints nothing."""
    shown = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return (shown.stdout.splitlines() or [compiler])[0]


@cache
def is_gcc(compiler: str) -> bool:
    """Return whether `compiler` is GNU C++; other compilers may not accept `GCC_FLAGS`."""
    shown = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return "Free Software Foundation" in shown.stdout
