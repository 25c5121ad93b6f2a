"""The C++ compiler behind TorchInductor on a CPU, and the flags that it needs to compile correctly."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

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


def flag_options(march: str) -> dict[str, Any]:
    """Return the settings of TorchInductor that compile for architecture and flags `march`, such as `native -fno-x`.

    PyTorch 2.11 has no setting for them (`cpp.march`); there the compiler is a script that adds them to every call.
    """
    from torch._inductor import config  # not at the top: it loads the compiler

    return {"cpp.march": march} if hasattr(config.cpp, "march") else {"cpp.cxx": (None, _script(march))}


@cache
def _script(march: str) -> str:
    """Write a script that calls the compiler with `-march=` and `march`; it is removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="solstice-compiler-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    script = Path(folder) / "g++"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(find_compiler() or "g++")} "$@" -march={march}\n')
    script.chmod(0o700)
    return str(script)
