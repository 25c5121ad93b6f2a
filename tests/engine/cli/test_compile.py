"""`solstice compile` prints a row for each backend and size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from engine.cli.compile import compile_model
from engine.system.device import fastest_precision


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLSTICE_CACHE", str(tmp_path / "cache"))


def test_the_table_names_backend_size_and_rate(model_file: Path) -> None:
    result = CliRunner().invoke(
        compile_model,
        [str(model_file), "--device", "cpu", "--backend", "eager", "--sizes", "32"],
    )

    assert result.exit_code == 0, result.output
    assert f"eager {fastest_precision(torch.device('cpu'))}" in result.output
    assert "images/s" in result.output


def test_json_has_one_row_for_each_backend_and_size(model_file: Path) -> None:
    arguments = [str(model_file), "--device", "cpu", "--backend", "eager", "--sizes", "32,48", "--json"]

    rows = json.loads(CliRunner().invoke(compile_model, arguments).stdout)

    assert [(row["backend"], row["side"]) for row in rows] == [("eager", 32), ("eager", 48)]


@pytest.mark.parametrize("sizes", ["", "30", "8", "256,", "256;512", "-256", "big"])
def test_sizes_that_are_not_multiples_of_4_are_refused(model_file: Path, sizes: str) -> None:
    result = CliRunner().invoke(compile_model, [str(model_file), "--sizes", sizes])

    assert result.exit_code == 2
    assert "multiples of 4" in result.output
