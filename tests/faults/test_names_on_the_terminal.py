"""No command obeys the control characters in names that it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.images import photo

UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

HOSTILE = "\x1b]0;owned\x07\x9b2J\u202e.jpg"


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "src", "dst", "--model", "{model}", "--backend", "eager", "--device", "cpu"],
        ["convert", HOSTILE, "dst", "--model", "{model}"],
        ["convert", "src", "dst", "--model", HOSTILE],
        ["convert", "src", "dst", "--model", "m", "--size", HOSTILE],
        ["import", HOSTILE, "a.safetensors"],
        ["models"],
        ["models", "--verbose"],
        [HOSTILE],
    ],
    ids=lambda arguments: " ".join(arguments).encode("ascii", "backslashreplace").decode()[:40],
)
def test_no_command_writes_control_characters(arguments: list[str], tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / HOSTILE).write_bytes(photo()[:200])
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{HOSTILE}[red].safetensors").write_bytes(model_file.read_bytes())
    words = [word.format(model=model_file) for word in arguments]
    environment = {**os.environ, "SOLSTICE_MODELS": str(tmp_path / "models"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "engine", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=120)
    shown = (done.stdout + done.stderr).decode()
    assert "owned" in shown or arguments[0] == "import" or "--verbose" in arguments
    assert not UNSAFE.search(shown), shown
