"""Memory sizes as users write them, and available memory of machine and container."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import container
from engine.system.memory import available_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [("6G", 6 << 30), ("800M", 800 << 20), ("1.5GB", 3 << 29), ("64KiB", 64 << 10), ("4096", 4096), ("2t", 2 << 40)],
)
def test_a_size_is_a_number_with_a_unit(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "six", "6X", "-1G", "G", "1 2"])
def test_another_text_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="such as 6G"):
        parse_bytes(text)


def test_available_memory_is_less_than_the_total() -> None:
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    assert 0 < available_bytes() < int(total.split()[1]) * 1024


def test_the_limit_of_a_container_limits_available_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    monkeypatch.setattr(container, "_ROOT", tmp_path)
    assert available_bytes() == 600_000
