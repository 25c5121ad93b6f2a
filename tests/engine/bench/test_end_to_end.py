from __future__ import annotations

import mmap
import os
import signal

import pytest
import torch

from engine.bench.document import Document
from engine.bench.end_to_end import PeakMemory, in_new_process
from engine.errors import SetupError, StopRun


def refuse(what: str) -> None:
    raise SetupError(f"{what} is missing.")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def peak_of(num_bytes: int) -> tuple[int, int]:
    """Return the peak that is seen while `num_bytes` are held, and the one after they were given back."""
    before = PeakMemory(torch.device("cpu"))
    with mmap.mmap(-1, num_bytes) as block:  # the heap of a measured process keeps what is freed
        for page in range(0, num_bytes, mmap.PAGESIZE):
            block[page] = 1
        held = before.num_bytes()
    return held, PeakMemory(torch.device("cpu")).num_bytes()


def test_an_error_of_the_measured_process_reaches_the_caller() -> None:
    with pytest.raises(SetupError, match="the model is missing"):
        in_new_process(refuse, "the model")


def test_a_process_that_is_killed_is_reported_in_one_sentence() -> None:
    with pytest.raises(StopRun, match="ended with exit code -9"):
        in_new_process(die)


def test_the_peak_of_memory_begins_anew_for_each_run() -> None:
    held, afterwards = in_new_process(peak_of, 200_000_000)

    assert held - afterwards > 150_000_000


def test_a_run_from_files_to_files_is_measured(measured: Document) -> None:
    run = measured["workloads"][0]["end_to_end"]

    assert run["images"] >= 2
    assert run["limited_by"] in run["stage_use"]
    assert run["limited_by"] == max(run["stage_use"], key=run["stage_use"].get)
    assert 0 < run["cpu_use"]["median"] <= 1.5
    assert run["peak_bytes"]["median"] > 50_000_000
    assert run["gpu_use"] is None
    assert set(run["joules_per_image"]) <= {"rapl", "nvml"}
    assert run["start"]["warm_up_s"] > 0


def test_shares_are_rates_over_ceilings_of_the_same_round(measured: Document) -> None:
    run = measured["workloads"][0]["end_to_end"]

    expected = [
        rate / ceiling
        for rate, ceiling in zip(run["images_per_s"]["values"], run["ceiling_images_per_s"]["values"], strict=True)
    ]

    assert run["share_of_ceiling"]["values"] == pytest.approx(expected, rel=1e-3)
