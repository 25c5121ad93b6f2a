"""Limits of a container, in the files of both versions of control groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import container
from engine.config import num_cores
from engine.container import cpu_quota, free_memory_bytes

V2 = "0::/kubepods/pod1/c1\n"
V1 = "4:memory:/docker/c1\n3:cpu,cpuacct:/docker/c1\n0::/\n"


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty tree of control groups."""
    monkeypatch.setattr(container, "_ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(container, "_MEMBERSHIP", tmp_path / "membership")
    return tmp_path / "cgroup"


def fill(root: Path, membership: str, files: dict[str, str]) -> None:
    (root.parent / "membership").write_text(membership)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        (V2, {}, None),
        (V2, {"cpu.max": "max 100000"}, None),
        (V2, {"cpu.max": "150000 100000"}, 1.5),
        (V2, {"kubepods/pod1/c1/cpu.max": "50000 100000"}, 0.5),
        (V2, {"kubepods/cpu.max": "400000 100000", "kubepods/pod1/c1/cpu.max": "max 100000"}, 4.0),
        (V2, {"kubepods/pod1/cpu.max": "100000 100000", "kubepods/pod1/c1/cpu.max": "300000 100000"}, 1.0),
        (V2, {"cpu.max": "nonsense"}, None),
        (V1, {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        (V1, {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 2.5),
        (
            V1,
            {"cpu,cpuacct/docker/c1/cpu.cfs_quota_us": "50000", "cpu,cpuacct/docker/c1/cpu.cfs_period_us": "50000"},
            1.0,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "0"}, None),
    ],
)
def test_the_smallest_processor_quota_counts(
    membership: str, files: dict[str, str], quota: float | None, groups: Path
) -> None:
    fill(groups, membership, files)
    assert cpu_quota() == quota


@pytest.mark.parametrize(
    ("membership", "files", "num_bytes"),
    [
        (V2, {}, None),
        (V2, {"memory.max": "max", "memory.current": "5"}, None),
        (V2, {"memory.max": "1000", "memory.current": "400"}, 600),
        (V2, {"memory.max": "1000", "memory.current": "1400"}, 0),
        (V2, {"kubepods/pod1/memory.max": "900", "kubepods/pod1/memory.current": "800"}, 100),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "5"}, None),
        (V1, {"memory/docker/c1/memory.limit_in_bytes": "900", "memory/docker/c1/memory.usage_in_bytes": "100"}, 800),
    ],
)
def test_the_smallest_memory_limit_counts(
    membership: str, files: dict[str, str], num_bytes: int | None, groups: Path
) -> None:
    fill(groups, membership, files)
    assert free_memory_bytes() == num_bytes


def test_without_control_groups_nothing_is_limited(groups: Path) -> None:
    assert (cpu_quota(), free_memory_bytes()) == (None, None)


def test_cores_are_those_of_the_quota_rounded_up(groups: Path) -> None:
    without = num_cores()
    fill(groups, V2, {"cpu.max": "50000 100000"})
    assert num_cores() == 1
    fill(groups, V2, {"cpu.max": "90000000 100000"})
    assert num_cores() == without
