from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from engine.bench.document import Document, save
from engine.cli.plan import plan_deployment
from tests.engine.bench.conftest import document as document
from tests.engine.bench.conftest import measured as measured


def run(*arguments: str) -> str:
    return CliRunner().invoke(plan_deployment, list(arguments), catch_exceptions=False).stdout


def test_a_plan_from_a_measurement_prints_a_table_and_values_for_helm(document: Document, tmp_path: Path) -> None:
    save(document, tmp_path / "run.json")
    printed = run("--images-per-day", "1000000", "--size", "48", "--bench", str(tmp_path / "run.json"))
    assert "workers at the peak" in printed
    values = json.loads(printed[printed.index("{") :])
    assert set(values) == {"kafka", "keda", "resources"}


def test_a_plan_as_json_has_every_number(document: Document, tmp_path: Path) -> None:
    save(document, tmp_path / "run.json")
    printed = run("--images-per-day", "1000000", "--size", "48", "--bench", str(tmp_path / "run.json"), "--json")
    made = json.loads(printed)
    assert made["workers_at_peak"] >= 1
    assert made["values"]["keda"]["lagThreshold"] == made["lag_threshold"]
