"""Memory that a process may take, and sizes of memory as users write them."""

from __future__ import annotations

import re
from pathlib import Path

from engine.container import free_memory_bytes

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def available_bytes() -> int:
    """Return the bytes that this process could take now: free on the machine, and within the container's limit."""
    machine, container = _meminfo("MemAvailable"), free_memory_bytes()
    return machine if container is None else min(machine, container)


def parse_bytes(text: str) -> int:
    """Parse a size such as `6G`, `800M` or `1.5GB` (powers of 1024); raises `ValueError` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"a memory size is a number with K, M, G or T, such as 6G, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/meminfo has no line {name}")
