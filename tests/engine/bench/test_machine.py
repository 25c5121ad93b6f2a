from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import torch

from engine.bench.machine import OtherLoad, describe_machine, describe_versions, own_cpu_s
from engine.config import num_cores
from engine.system.device import cpu_name


def test_a_cpu_is_described_without_a_gpu() -> None:
    machine = describe_machine(torch.device("cpu"))

    assert machine["gpu"] is None
    assert machine["cores"] == num_cores()
    assert machine["cpu"] == cpu_name() != ""
    assert machine["memory_bytes"] > 1 << 28


def test_the_versions_name_torch_and_this_package() -> None:
    versions = describe_versions()

    assert versions["torch"] == torch.__version__
    assert {"solstice", "python", "simplejpeg"} <= set(versions)


def test_own_processor_time_includes_children_that_have_ended() -> None:
    before_s = own_cpu_s()

    subprocess.run([sys.executable, "-S", "-c", "for i in range(3_000_000): pass"], check=True)

    assert own_cpu_s() > before_s


def test_load_of_another_process_is_seen_and_own_load_is_not() -> None:
    """A child counts as another process while it runs, since only children that have ended are counted as own."""
    core = min(os.sched_getaffinity(0))
    busy = subprocess.Popen(
        [sys.executable, "-S", "-c", f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"]
    )
    try:
        load = OtherLoad()
        while (others := load.cores()) is not None and others < 0.05:  # the test's time limit ends it otherwise
            time.sleep(0.05)
    finally:
        busy.kill()
        busy.wait()

    assert others is not None
    assert 0.05 <= others <= len(os.sched_getaffinity(0))


def test_load_over_a_moment_is_no_more_than_all_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may count two ticks of 10 ms in a tenth of a millisecond."""
    readings = iter([(0.0, 5.0, 1.0), (0.0001, 5.02, 1.0)])
    monkeypatch.setattr(OtherLoad, "_reading", lambda _self: next(readings))
    load = OtherLoad()
    assert load.cores() == len(os.sched_getaffinity(0))
