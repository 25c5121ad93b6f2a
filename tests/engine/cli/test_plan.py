from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.bench.document import Document, save
from engine.cli.plan import plan_deployment
from engine.errors import SetupError
from tests.engine.bench.conftest import document as document
from tests.engine.bench.conftest import measured as measured
from tests.engine.bench.conftest import tiny_run as tiny_run


def run(*arguments: str) -> str:
    return CliRunner().invoke(plan_deployment, list(arguments), catch_exceptions=False).stdout


def test_a_plan_from_a_measurement_prints_a_table_and_values_for_helm(document: Document, tmp_path: Path) -> None:
    save(document, tmp_path / "run.json")
    printed = run("--images-per-day", "1000000", "--size", "48", "--bench", str(tmp_path / "run.json"))
    assert "workers at the peak" in printed
    values = json.loads(printed[printed.index("{") :])
    assert set(values) == {"kafka", "keda", "resources"}


def test_a_plan_as_json_has_workers_and_values_for_helm(document: Document, tmp_path: Path) -> None:
    save(document, tmp_path / "run.json")
    printed = run("--images-per-day", "1000000", "--size", "48", "--bench", str(tmp_path / "run.json"), "--json")
    made = json.loads(printed)
    assert made["workers_at_peak"] >= 1
    assert made["values"]["keda"]["lagThreshold"] == made["lag_threshold"]


def test_an_archive_is_planned_by_hours_machines_and_requests(document: Document, tmp_path: Path) -> None:
    save(document, tmp_path / "run.json")
    common = ("--archive", "1000000", "--size", "48", "--bench", str(tmp_path / "run.json"))
    assert "requests to the object store" in run(*common)
    made = json.loads(run(*common, "--days", "2", "--json"))
    assert made["requests"] == 2_002_000
    assert made["machines"] >= made["machine_hours"] / 48


def test_exactly_one_of_queue_and_archive_is_planned() -> None:
    for arguments in ((), ("--archive", "1", "--images-per-day", "1")):
        with pytest.raises(SetupError, match="Name one of --images-per-day, for a queue, and --archive"):
            run("--size", "48", *arguments)
