"""`solstice export` checks its arguments first and leaves no partly written file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.cli.export import export_model
from engine.errors import SetupError


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["net.pth", "--to", "onnx"], r"must end in \.onnx, got"),
        (["net.onnx", "--to", "torch"], r"must end in \.pth or \.pt, got"),
        (["net.pth", "--to", "torch", "--raw"], "--raw applies to --to onnx only"),
        (["net.pth", "--to", "torch", "--dtype", "fp16"], "leave out --dtype"),
        (["net.onnx", "--to", "onnx", "--dtype", "bf16"], "use --dtype fp16 or fp32"),
    ],
)
def test_incompatible_options_are_refused(
    arguments: list[str], reason: str, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(export_model, [str(model_file), *arguments])
    assert isinstance(result.exception, SetupError)
    assert re.search(reason, str(result.exception))
    assert list(tmp_path.iterdir()) == []


def test_exporting_a_checkpoint_prints_the_project_that_loads_it(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "net_G.pth"
    result = CliRunner().invoke(export_model, [str(model_file), str(out), "--to", "torch"])
    assert result.exit_code == 0, result.exception
    assert "net_G.pth: Loads in pytorch-CycleGAN-and-pix2pix: --ngf 4" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["net_G.pth"]


def test_an_unwritable_path_is_an_error(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = CliRunner().invoke(export_model, [str(model_file), str(tmp_path / "file/net.pth"), "--to", "torch"])
    assert isinstance(result.exception, SetupError)
    assert "cannot be written: Not a directory." in str(result.exception)
