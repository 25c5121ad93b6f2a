"""Devices: selection, precision, identification, and explanation of CUDA failures."""

from __future__ import annotations

import hashlib
import platform
import re
import warnings
from pathlib import Path

import torch

from engine.errors import SetupError


def choose_device(name: str) -> torch.device:
    """Resolve `auto`, `cpu`, `cuda` or `cuda:N` to a device; a GPU always has an index.

    Raises `SetupError` if the device does not exist.
    """
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SetupError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}.") from None
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise SetupError(f"--device {name} is not supported; use cpu or cuda.")
    obstacle = cuda_obstacle()
    if obstacle is not None:
        raise SetupError(f"--device cuda: {obstacle}, or use --device cpu.")
    if device.index is not None and device.index >= torch.cuda.device_count():
        raise SetupError(f"--device {device}: this machine has {torch.cuda.device_count()} GPU(s), counted from 0.")
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


def cpu_name() -> str:
    """Return the processor's name as the kernel reports it; its architecture where that is not to be had."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def gpu_of(name: str) -> torch.device | None:
    """Return the GPU that `choose_device` selects, or None for the CPU; raises the same errors."""
    device = choose_device(name)
    return device if device.type == "cuda" else None


def cuda_obstacle() -> str | None:
    """Return a clause on why PyTorch cannot use a GPU here and what to do about it; None if it can."""
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA; install a CUDA build of torch"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reported below, in one sentence
        if torch.cuda.is_available():
            return None
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:
            return explain_cuda_failure(str(error), torch.version.cuda)
    return "no NVIDIA driver or GPU was found; `nvidia-smi` must work first"


def explain_cuda_failure(error: str, cuda_version: str) -> str:
    """Rephrase PyTorch's error about a GPU that does not start as a clause with what to do next."""
    if "driver on your system is too old" in error:
        found = re.search(r"found version (\d+)", error)
        newest = f" (it supports CUDA up to {int(found[1]) // 1000}.{int(found[1]) % 1000 // 10})" if found else ""
        return (
            f"the NVIDIA driver is too old for this PyTorch, which was built for CUDA {cuda_version}{newest}; update "
            "the driver or install a PyTorch built for an older CUDA"
        )
    if "no CUDA-capable device" in error or "No CUDA GPUs" in error:
        return "the NVIDIA driver works but reports no GPU; check CUDA_VISIBLE_DEVICES"
    if "Found no NVIDIA driver" in error:
        return "no NVIDIA driver was found; `nvidia-smi` must work first"
    reason = (error.strip().splitlines() or ["no reason given"])[0].rstrip(".")
    return f"CUDA does not start ({reason}); `nvidia-smi` must work first"


def fastest_precision(device: torch.device) -> str:
    """Return the fastest floating-point type with hardware support: fp16 on GPUs, bf16 or fp32 on CPUs."""
    if device.type == "cuda":
        return "fp16"
    return "bf16" if has_bf16() else "fp32"


def has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported()) or has_amx()


def has_amx() -> bool:
    """Return whether this CPU has AMX, instructions for products of bfloat16 matrices."""
    return bool(torch.cpu._is_amx_tile_supported())


def kernels_of(device: torch.device) -> str:
    """Identify the hardware that determines which kernels run, and so how they round: GPU model or CPU features."""
    return f"{device.type} {gpu_name(device) if device.type == 'cuda' else _cpu_features()}"


def gpu_name(device: torch.device) -> str:
    """Return a GPU's name and compute capability, such as `NVIDIA H200 sm_90`."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} sm_{major}{minor}"


def _cpu_features() -> str:
    """Hash this CPU's instruction sets: compiled code uses all of them and would crash where one is missing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return torch.backends.cpu.get_cpu_capability()
    return hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:16]


def free_bytes(device: torch.device) -> int:
    """Return the free bytes of GPU memory, including PyTorch's own unused blocks."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
