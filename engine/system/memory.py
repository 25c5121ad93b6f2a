"""How much memory a process may take, containers included."""

from __future__ import annotations

import re
from pathlib import Path

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int:
    """Give the bytes that this process could take now: what the machine has free, within its container's limit."""
    free = [_meminfo("MemAvailable")]
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            free.append(int(limit) - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no container, or one of another kind
    return max(0, min(free))


def parse_bytes(text: str) -> int:
    """Read a size such as `6G`, `800M` or `1.5GB` (powers of 1024); raises `ValueError` on anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f"a memory size is a number with K, M, G or T, such as 6G, got {text!r}")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/meminfo does not tell {name}")
