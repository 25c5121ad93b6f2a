"""The machine and the versions that a measurement belongs to, and what else kept its processors busy."""

from __future__ import annotations

import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import torch

from engine.config import num_cores
from engine.system.device import cpu_name, gpu_name, has_amx, has_bf16
from engine.system.versions import installed

_PACKAGES = {
    "solstice": "solstice-engine",
    "dali": "nvidia-dali-cuda130",
    "tensorrt": "torch-tensorrt",
    "simplejpeg": "simplejpeg",
    "pillow": "pillow",
}
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what decides how fast this machine is: processor, memory, GPU."""
    on_gpu = device.type == "cuda"
    return {
        "cpu": cpu_name(),
        "cores": num_cores(),
        "bf16": has_bf16(),
        "amx": has_amx(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": gpu_name(device) if on_gpu else None,
        "gpu_memory_bytes": torch.cuda.get_device_properties(device).total_memory if on_gpu else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide how fast Solstice is."""
    versions = {name: installed(package) for name, package in _PACKAGES.items()}
    return {"python": platform.python_version(), "torch": torch.__version__, **versions}


def own_cpu_s() -> float:
    """Return the processor time in seconds of this process and of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class OtherLoad:
    """Counts the processor time that others take on the processors of this process, from its creation on."""

    def __init__(self) -> None:
        self._before = self._reading()

    def cores(self) -> float | None:
        """Return the mean number of processors that other processes kept busy; None where it cannot be read."""
        after = self._reading()
        if after is None or self._before is None:
            return None
        wall_s, busy_s, own_s = (now - before for now, before in zip(after, self._before, strict=True))
        if wall_s <= 0:
            return 0.0
        # The kernel counts in ticks of 10 ms, and sometimes several at once, which is too much for a short time.
        return min(max(0.0, busy_s - own_s) / wall_s, float(len(os.sched_getaffinity(0))))

    def _reading(self) -> tuple[float, float, float] | None:
        busy_s = _busy_s()
        return None if busy_s is None else (time.perf_counter(), busy_s, own_cpu_s())


def _busy_s() -> float | None:
    """Sum the busy time of this process's processors since the machine started, time stolen by a host included."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    wanted = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for line in lines:
        name, *fields = line.split()
        if name in wanted:
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / _TICKS_PER_S
