"""Which device computes, in which precision, and what is in the way when it cannot."""

from __future__ import annotations

import hashlib
import re
import warnings
from pathlib import Path

import torch

from engine.errors import SetupError


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device; raises `SetupError` when it is not there.

    A GPU always comes with its number.
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


def gpu_of(name: str) -> torch.device | None:
    """Give the GPU that `choose_device` picks, or None when it picks the CPU; raises `SetupError` likewise."""
    device = choose_device(name)
    return device if device.type == "cuda" else None


def cuda_obstacle() -> str | None:
    """Say what keeps PyTorch from using a GPU here and what to do about it, in half a sentence; None when nothing."""
    if torch.version.cuda is None:
        return "this PyTorch was built without CUDA; install a CUDA build of torch"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is said below, in one sentence
        if torch.cuda.is_available():
            return None
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:
            return explain_cuda_failure(str(error), torch.version.cuda)
    return "no NVIDIA driver or GPU was found; `nvidia-smi` must work first"


def explain_cuda_failure(error: str, cuda_version: str) -> str:
    """Put PyTorch's words about a GPU that does not start into half a sentence with what to do next."""
    if "driver on your system is too old" in error:
        found = re.search(r"found version (\d+)", error)
        newest = f" (it knows CUDA up to {int(found[1]) // 1000}.{int(found[1]) % 1000 // 10})" if found else ""
        return (
            f"the NVIDIA driver is too old for this PyTorch, which was built for CUDA {cuda_version}{newest}; update "
            "the driver or install a PyTorch built for an older CUDA"
        )
    if "no CUDA-capable device" in error or "No CUDA GPUs" in error:
        return "the NVIDIA driver works but shows no GPU; check CUDA_VISIBLE_DEVICES"
    if "Found no NVIDIA driver" in error:
        return "no NVIDIA driver was found; `nvidia-smi` must work first"
    reason = (error.strip().splitlines() or ["no reason given"])[0].rstrip(".")
    return f"CUDA does not start ({reason}); `nvidia-smi` must work first"


def fastest_precision(device: torch.device) -> str:
    """Give the fastest type that passes the parity gate there: fp16 on GPUs, bf16 where the CPU computes in it."""
    if device.type == "cuda":
        return "fp16"
    return "bf16" if has_bf16() else "fp32"


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def kernels_of(device: torch.device) -> str:
    """Identify what decides which kernels run there, and hence how they round: the kind of GPU, or a CPU's features."""
    return f"{device.type} {gpu_name(device) if device.type == 'cuda' else _cpu_features()}"


def gpu_name(device: torch.device) -> str:
    """Identify a kind of GPU: its name and compute capability, such as `NVIDIA H200 sm_90`."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} sm_{major}{minor}"


def _cpu_features() -> str:
    """Identify the instructions this CPU has: compiled code uses all of them, and would crash where one is missing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return torch.backends.cpu.get_cpu_capability()
    return hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:16]


def free_bytes(device: torch.device) -> int:
    """Give the bytes of GPU memory that nobody uses now, PyTorch's own unused blocks included."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
