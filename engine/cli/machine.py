"""Hardware and libraries of this machine that decide how fast images are translated."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import torch

from engine.codec.formats import is_installed, missing_extras
from engine.config import num_cores
from engine.runtime.backends import inductor, tensorrt
from engine.runtime.cache import default_cache
from engine.runtime.select import buildable
from engine.system.compiler import find_compiler
from engine.system.device import choose_device, cuda_obstacle, fastest_precision, has_amx, has_bf16
from engine.system.extras import install_hint

_DALI = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")
_NVIMGCODEC = ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12")


@dataclass(frozen=True, kw_only=True)
class MachineReport:
    """What `solstice doctor` shows."""

    facts: dict[str, str] = field(default_factory=dict)
    """Hardware and versions by name; `none` or `not installed` where there is none."""
    backend: str = ""
    """Backend, precision and device that `auto` picks for a large run."""
    advice: tuple[str, ...] = ()
    """Sentences about what to install or fix for more speed."""


def examine() -> MachineReport:
    """Inspect this machine; raises nothing, whatever is missing."""
    device = choose_device("auto")
    names = [*buildable(device), "eager"]
    precision = "fp32" if names == ["eager"] and device.type == "cpu" else fastest_precision(device)
    facts = {
        "processor": f"{num_cores()} cores, {platform.machine()}",
        "bf16": _yes(has_bf16()),
        "AMX": _yes(has_amx()),
        "NVIDIA driver": _driver() or "none",
        "GPU": ", ".join(_gpus()) or f"none used: {cuda_obstacle() or 'none found'}",
        "PyTorch": torch.__version__,
        "CUDA of PyTorch": torch.version.cuda or "none",
        "Torch-TensorRT": _installed("torch-tensorrt", "torch-tensorrt-rtx"),
        "TensorRT": _installed("tensorrt", "tensorrt-rtx"),
        "DALI": _installed(*_DALI),
        "nvJPEG": _installed("nvidia-nvjpeg", "nvidia-nvjpeg-cu12"),
        "nvImageCodec": _installed(*_NVIMGCODEC),
        "libjpeg-turbo": _installed("simplejpeg"),
        "formats": _formats(),
        "C++ compiler": find_compiler() or "none",
        "cache": _cache(default_cache()),
    }
    return MachineReport(facts=facts, backend=f"{names[0]} {precision} on {device}", advice=tuple(_advice(device)))


def _advice(device: torch.device) -> list[str]:
    advice = []
    obstacle = cuda_obstacle()
    if obstacle is not None and _driver() is not None:
        advice.append(f"There is an NVIDIA driver, but {obstacle}.")
    if device.type == "cuda" and not tensorrt.installed():
        advice.append("`pip install torch-tensorrt` adds the backend that is likely to be the fastest on this GPU.")
    if device.type == "cuda" and inductor.find_cuda_home() is None:
        advice.append("Install the CUDA toolkit, or set CUDA_HOME, so that backend inductor can compile for this GPU.")
    if device.type == "cuda" and "not installed" in (_installed(*_DALI), _installed(*_NVIMGCODEC)):
        advice.append("`pip install 'solstice-engine[gpu]'` lets this GPU decode and encode JPEGs.")
    if not is_installed("simplejpeg"):
        advice.append("Install simplejpeg; without it, JPEGs are decoded slower and damage in them goes unnoticed.")
    if find_compiler() is None:
        advice.append("Install g++ (Debian and Ubuntu: apt install g++) so that models can be compiled.")
    if not _is_writable(default_cache()):
        advice.append("Set SOLSTICE_CACHE to a writable folder; otherwise models are compiled again in every run.")
    if device.type == "cpu" and not has_bf16():
        advice.append("This processor has no bf16 arithmetic; one with AMX, or a GPU, is several times as fast.")
    return advice


def _formats() -> str:
    """Return which optional readers are missing, and what installs them."""
    missing = [f"{name} needs {install_hint(extra)}" for name, extra in missing_extras()]
    return "all that can be read" if not missing else "; ".join(missing)


def _gpus() -> list[str]:
    if cuda_obstacle() is not None:
        return []
    return [
        f"{torch.cuda.get_device_name(i)} ({torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB)"
        for i in range(torch.cuda.device_count())
    ]


def _driver() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(answer.stdout.split()), None)


def _installed(*distributions: str) -> str:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "not installed"


def _cache(folder: Path) -> str:
    return f"{folder} ({'can' if _is_writable(folder) else 'cannot'} be written)"


def _is_writable(folder: Path) -> bool:
    """Return whether files can be created in `folder` or, if it does not exist, in its nearest parent that does."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


def _yes(there: bool) -> str:
    return "yes" if there else "no"
