"""Limits of the container that this process runs in: processor quota and memory, from control groups v1 and v2.

A limit of any group above the process's own counts too, as far as it is visible from inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60  # v1 writes the largest multiple of a page for "no limit"


def cpu_quota() -> float | None:
    """Return the number of processors whose time this process may use, such as 1.5; None without a quota."""
    quotas = [_v2_quota(folder) for folder in _folders("")] + [_v1_quota(folder) for folder in _folders("cpu")]
    return min((quota for quota in quotas if quota is not None), default=None)


def free_memory_bytes() -> int | None:
    """Return the bytes that the container still allows this process to take; None without a limit."""
    free = [_free(folder, "memory.max", "memory.current") for folder in _folders("")]
    free += [_free(folder, "memory.limit_in_bytes", "memory.usage_in_bytes") for folder in _folders("memory")]
    return min((max(0, num_bytes) for num_bytes in free if num_bytes is not None), default=None)


def _folders(controller: str) -> Iterator[Path]:
    """Iterate over the process's group of `controller` ("" is version 2) and the groups above it, from the root."""
    roots = (
        [_ROOT] if not controller else [_ROOT / controller, _ROOT / "cpu,cpuacct"][: 2 if controller == "cpu" else 1]
    )
    parts = _group(controller).strip("/").split("/")
    for root in roots:
        for depth in range(len(parts) + 1):
            yield root.joinpath(*parts[:depth])


def _group(controller: str) -> str:
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controller in controllers.split(","):
            return group
    return ""


def _v2_quota(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split()
    return _ratio(*words) if len(words) == 2 else None


def _v1_quota(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """Divide microseconds of processor time by those of a period; None for `max` and -1, which mean no quota."""
    if not quota.isdecimal() or not period.isdecimal() or int(period) == 0 or int(quota) == 0:
        return None
    return int(quota) / int(period)


def _free(folder: Path, limit_name: str, used_name: str) -> int | None:
    limit, used = _read(folder / limit_name), _read(folder / used_name)
    if not limit.isdecimal() or not used.isdecimal() or int(limit) >= _UNLIMITED:
        return None
    return int(limit) - int(used)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
