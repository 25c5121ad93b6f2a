from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.run_all import keep, machine_name, measure, plan
from tests import ROOT


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("quick", [False, True])
def test_every_planned_command_is_there(quick: bool, on_gpu: bool) -> None:
    commands = plan(quick=quick, reference=Path("checkout"), on_gpu=on_gpu)

    for command in commands.values():
        module = command[1].replace(".", "/")
        assert (ROOT / f"{module}.py").exists() or (ROOT / module / "__main__.py").exists(), command
    assert ("gpu" in commands) is on_gpu
    assert commands["peer"][-2:] == ["--reference", "checkout"]


def test_the_last_line_of_a_benchmark_is_its_result() -> None:
    run = measure(["-c", 'print(\'on the way\'); print(\'{"benchmark": "x", "value": 1}\')'])

    assert run["result"] == {"benchmark": "x", "value": 1}
    assert run["command"].startswith("python -c")


def test_a_benchmark_that_fails_is_kept_as_failed() -> None:
    run = measure(["-c", "import sys; sys.exit(3)"])

    assert run["failed"].startswith("exit code 3")
    assert "result" not in run


def test_a_result_replaces_an_earlier_one_and_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "results" / "some.json"
    facts = {"cpu": "x"}

    keep(path, "peer", {"result": {"machine": facts, "ratio": 1}})
    keep(path, "camera", {"result": {"machine": facts, "ratio": 2}})
    keep(path, "peer", {"failed": "exit code 1"})

    document = json.loads(path.read_text())
    assert document["machine"] == facts
    assert document["runs"] == {"peer": {"failed": "exit code 1"}, "camera": {"result": {"machine": facts, "ratio": 2}}}


def test_a_machine_is_named_by_processor_cores_and_gpu() -> None:
    assert machine_name({"cpu": "AMD EPYC", "cores": 2, "gpu": None}) == "amd-epyc-2-cores"
    assert (
        machine_name({"cpu": "X(R) 1", "cores": 16, "gpu": "NVIDIA H200 sm_90"}) == "x-r-1-16-cores-nvidia-h200-sm-90"
    )
