from __future__ import annotations

import json

from click.testing import CliRunner

from engine.commands.doctor import doctor, in_words
from engine.machine import Machine


def test_it_says_what_is_there_and_which_backend_auto_takes() -> None:
    result = CliRunner().invoke(doctor)

    assert result.exit_code == 0
    assert "PyTorch" in result.output
    assert "--backend auto uses" in result.output


def test_json_holds_the_same() -> None:
    found = json.loads(CliRunner().invoke(doctor, ["--json"]).output)

    assert set(found) == {"facts", "backend", "advice"}
    assert found["facts"]["PyTorch"] in CliRunner().invoke(doctor).output


def test_with_nothing_to_mend_it_says_so() -> None:
    words = in_words(Machine(facts={"GPU": "one"}, backend="tensorrt fp16 on cuda:0"))

    assert words.endswith("Nothing is missing for the fastest backend of this machine.")
