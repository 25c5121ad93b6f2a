"""Redirect the output of native libraries to a file; Solstice's own stays on the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from engine.cli.native_log import NativeLog
from tests import ROOT


def test_native_output_is_in_the_file_and_python_output_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "native.log"
    log.write_text("of an earlier run")
    with NativeLog() as native:
        os.write(2, b"before the run\n")
        native.open(log)
        os.write(2, b"a library complains\n")
        print("we report", file=sys.stderr)
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "before the run\nwe report\nafterwards\n"
    assert log.read_text() == "a library complains\n"


def test_an_environment_variable_turns_redirection_off(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOLSTICE_DECODER_LOG", "1")
    with NativeLog() as native:
        native.open(tmp_path / "native.log")
        os.write(2, b"a library complains\n")
    assert capfd.readouterr().err == "a library complains\n"
    assert not (tmp_path / "native.log").exists()


def test_a_temporary_file_is_deleted_with_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with NativeLog() as native:
        native.open(None)
        os.write(2, b"a library complains\n")
        assert [path.read_text() for path in tmp_path.iterdir()] == ["a library complains\n"]
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_the_trace_of_a_native_crash_is_in_the_file(tmp_path: Path) -> None:
    script = (
        "import ctypes, sys; from pathlib import Path; from engine.cli.native_log import NativeLog\n"
        "with NativeLog() as native:\n    native.open(Path(sys.argv[1]))\n    ctypes.string_at(0)"
    )
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path / "native.log")], cwd=ROOT, capture_output=True)
    assert died.returncode < 0
    assert "Segmentation fault" in (tmp_path / "native.log").read_text()
