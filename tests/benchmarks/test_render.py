"""RESULTS.md is what its generator makes of the measurements, and the generator lays out any of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.render import FOLDER, GOALS, PAGE, page, read
from benchmarks.run_all import SCHEMA
from engine.bench.document import validate
from engine.bench.timing import Spread
from tests.engine.bench.conftest import TinyRun
from tests.engine.bench.conftest import tiny_run as tiny_run


def spread(*values: float) -> dict[str, Any]:
    return Spread(values).to_document()


@pytest.fixture(scope="module")
def machine(tiny_run: TinyRun) -> dict[str, Any]:
    return {**tiny_run.document["machine"], "cpu": "Some CPU", "cores": 2, "bf16": True, "amx": False, "gpu": None}


def results(machine: dict[str, Any], **runs: Any) -> dict[str, Any]:
    kept = {
        name.replace("_", "-"): {"date": "2026-11-26", "command": "python -m x", **run} for name, run in runs.items()
    }
    return {"schema": SCHEMA, "machine": machine, "runs": kept}


def test_the_page_is_what_the_generator_makes_of_the_files() -> None:
    assert PAGE.read_text() == page(read()), "run `python -m benchmarks.render`"


def test_every_file_holds_valid_documents_and_its_pictures_are_there() -> None:
    for name, document in read().items():
        assert document["schema"] == SCHEMA, name
        for run in document["runs"].values():
            if str(run.get("result", {}).get("schema", "")).startswith("solstice-bench/"):
                validate(run["result"])
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGE.read_text())
    assert [picture for picture in pictures if not (FOLDER / picture).exists()] == []


def test_without_files_the_page_says_that_nothing_was_measured() -> None:
    assert "No machine has been measured" in page({})


def test_a_document_of_bench_becomes_tables_and_three_pictures(machine: dict[str, Any], tiny_run: TinyRun) -> None:
    text = page({"some-cpu": results(machine, bench={"result": tiny_run.document})})

    assert "## Some CPU, 2 cores" in text
    assert "| tiny photos, 96x64 | inspect alone |" in text
    assert text.count("](results/some-cpu/bench/") == 3


def test_any_other_result_becomes_a_table_of_its_values_and_one_for_each_list(machine: dict[str, Any]) -> None:
    result = {
        "benchmark": "scaling",
        "machine": machine,
        "ratio": spread(1.0, 1.1, 1.2),
        "inner": {"images_per_s": 12.3456, "sides": [256, 512]},
        "archives": [{"images": 100, "cpu_ms": 1.5}, {"images": 1000, "cpu_ms": 1.25, "note": "x"}],
    }

    text = page({"some-cpu": results(machine, scaling={"result": result})})

    assert "| ratio | 1.1 (1 to 1.2) |" in text
    assert "| inner, images/s | 12.3 |" in text
    assert "| inner, sides | 256, 512 |" in text
    assert "| images | cpu ms | note |\n| --- | --- | --- |\n| 100 | 1.5 |  |\n| 1000 | 1.25 | x |" in text


def test_a_benchmark_that_failed_is_on_the_page(machine: dict[str, Any]) -> None:
    assert "**Not measured**: exit code 1." in page({"x": results(machine, peer={"failed": "exit code 1"})})


def test_goals_are_judged_by_the_kind_of_processor(machine: dict[str, Any]) -> None:
    peer = {"result": {"ratio": spread(3.0, 3.1)}}
    start = {"result": {"one photo": {"seconds": spread(2.2)}}}

    without_amx = page({"x": results(machine, peer=peer, start=start)})
    with_amx = page({"x": results({**machine, "amx": True}, peer=peer, start=start)})

    assert "| at least 2.2 times | 3.05 (3 to 3.1) | reached |" in without_amx
    assert "| at least 6 times | 3.05 (3 to 3.1) | **not reached** |" in with_amx
    assert "| at most 2.5 s | 2.2 | reached |" in without_amx
    assert "| at most 2 s | 2.2 | **not reached** |" in with_amx
    assert without_amx.count("not measured") == len(GOALS) - 2


@pytest.mark.parametrize(
    ("slowest", "row"), [(2.0, "| 3 (2 to 4) ~ | too noisy to tell |"), (2.4, "| 3.2 (2.4 to 4) ~ | reached |")]
)
def test_a_goal_is_judged_by_a_noisy_measurement_only_if_its_extremes_agree(
    slowest: float, row: str, machine: dict[str, Any]
) -> None:
    assert row in page({"x": results(machine, peer={"result": {"ratio": spread(slowest, 4.0)}})})


def test_openvino_is_compared_at_the_best_batch_of_each(machine: dict[str, Any]) -> None:
    rates = {
        "Solstice, batch 1": spread(3.0),
        "Solstice, batch 4": spread(6.0),
        "OpenVINO, batch 1": spread(4.0),
        "OpenVINO, batch 4": spread(2.0),
    }

    text = page({"x": results(machine, runtimes={"result": {"images_per_s": rates}})})

    assert "| generator over OpenVINO, ngf 64 | at least 1.2 times | 1.5 | reached |" in text


def test_a_machine_without_bf16_has_no_goals(machine: dict[str, Any]) -> None:
    assert "goal" not in page({"x": results({**machine, "bf16": False}, peer={"result": {}})})


def test_files_are_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "a.json").write_text("{}")

    assert list(read(tmp_path)) == ["a", "b"]
