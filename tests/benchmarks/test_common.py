from __future__ import annotations

import sys

import pytest

from benchmarks.common import measure_process


def test_a_process_is_measured_from_its_start_to_its_end() -> None:
    use = measure_process([sys.executable, "-S", "-c", "data = bytearray(60_000_000); sum(range(300_000))"])

    assert use.seconds >= use.cpu_s * 0.5
    assert use.cpu_s > 0
    assert use.peak_bytes > 60_000_000


def test_a_process_that_fails_is_reported_with_its_last_lines() -> None:
    with pytest.raises(RuntimeError, match=r"exit code 3 of .*\n.*the reason"):
        measure_process([sys.executable, "-S", "-c", "import sys; print('the reason'); sys.exit(3)"])
