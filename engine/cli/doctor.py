"""What this machine has for translating images: facts for `solstice doctor`, and what would make it faster."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch

from engine.config import num_cores
from engine.runtime.backends import inductor, tensorrt
from engine.runtime.cache import default_cache
from engine.runtime.select import buildable
from engine.system.device import choose_device, cuda_obstacle, fastest_precision, has_bf16


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Facts by name, and advice in sentences."""

    facts: dict[str, str] = field(default_factory=dict)
    backend: str = ""
    """What `auto` takes for a large run."""
    advice: tuple[str, ...] = ()
    """What to install or mend for more speed; empty when there is nothing."""


def examine() -> Machine:
    """Look at everything that decides how fast images are translated; never fails, whatever is missing."""
    device = choose_device("auto")
    names = [*buildable(device), "eager"]
    precision = "fp32" if names == ["eager"] and device.type == "cpu" else fastest_precision(device)
    facts = {
        "processor": f"{num_cores()} cores, {platform.machine()}",
        "bf16": _yes(has_bf16()),
        "AMX": _yes(torch.cpu._is_amx_tile_supported()),
        "NVIDIA driver": _driver() or "none",
        "GPU": ", ".join(_gpus()) or f"none used: {cuda_obstacle() or 'none found'}",
        "PyTorch": torch.__version__,
        "CUDA of PyTorch": torch.version.cuda or "none",
        "Torch-TensorRT": _installed("torch-tensorrt", "torch-tensorrt-rtx"),
        "TensorRT": _installed("tensorrt", "tensorrt-rtx"),
        "DALI": _installed("nvidia-dali-cuda130", "nvidia-dali-cuda120"),
        "nvJPEG": _installed("nvidia-nvjpeg", "nvidia-nvjpeg-cu12"),
        "nvImageCodec": _installed("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12"),
        "C++ compiler": inductor.find_compiler() or "none",
        "cache": _cache(default_cache()),
    }
    return Machine(facts=facts, backend=f"{names[0]} {precision} on {device}", advice=tuple(_advice(device)))


def _advice(device: torch.device) -> list[str]:
    advice = []
    obstacle = cuda_obstacle()
    if obstacle is not None and _driver() is not None:
        advice.append(f"There is an NVIDIA driver, but {obstacle}.")
    if device.type == "cuda" and not tensorrt.installed():
        advice.append("`pip install torch-tensorrt` adds the backend that is likely to be the fastest on this GPU.")
    if device.type == "cuda" and inductor.find_cuda_home() is None:
        advice.append("Install the CUDA toolkit, or set CUDA_HOME, so that backend inductor can compile for this GPU.")
    if inductor.find_compiler() is None:
        advice.append("Install g++ (Debian and Ubuntu: apt install g++) so that models can be compiled.")
    if not _is_writable(default_cache()):
        advice.append("Set SOLSTICE_CACHE to a folder that can be written, or models are compiled in vain.")
    if device.type == "cpu" and not has_bf16():
        advice.append("This processor has no bf16 arithmetic; one with AMX, or a GPU, is several times as fast.")
    return advice


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
    """Whether the folder, or the nearest one above it that exists, takes new files."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


def _yes(there: bool) -> str:
    return "yes" if there else "no"


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as one JSON object.")
def doctor(as_json: bool) -> None:
    """Say what this machine has, which backend `auto` takes, and what to install for a faster one."""
    machine = examine()
    click.echo(json.dumps(dataclasses.asdict(machine)) if as_json else in_words(machine))


def in_words(machine: Machine) -> str:
    """Lay out what was found for reading."""
    width = max(map(len, machine.facts))
    lines = [f"{name:{width}}  {value}" for name, value in machine.facts.items()]
    lines += ["", f"A large run with --backend auto uses {machine.backend}."]
    lines += machine.advice or ["Nothing is missing for the fastest backend of this machine."]
    return "\n".join(lines)
