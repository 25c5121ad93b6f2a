"""`solstice doctor` prints the facts of this machine as text or JSON."""

from __future__ import annotations

import json

from click.testing import CliRunner

from engine.cli.doctor import describe, doctor
from engine.cli.machine import MachineReport


def test_the_facts_and_the_backend_that_auto_picks_are_printed() -> None:
    result = CliRunner().invoke(doctor)

    assert result.exit_code == 0
    assert "PyTorch" in result.output
    assert "--backend auto uses" in result.output


def test_json_has_the_same_facts() -> None:
    found = json.loads(CliRunner().invoke(doctor, ["--json"]).output)

    assert set(found) == {"facts", "backend", "advice"}
    assert found["facts"]["PyTorch"] in CliRunner().invoke(doctor).output


def test_a_machine_that_lacks_nothing_gets_no_advice() -> None:
    words = describe(MachineReport(facts={"GPU": "one"}, backend="tensorrt fp16 on cuda:0"))

    assert words.endswith("Nothing is missing for the fastest backend of this machine.")
