from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.errors import SetupError
from trainer import evaluate
from trainer.checkpoints import load_checkpoint
from trainer.cli import commands, main, run_config
from trainer.config import DataConfig, RunConfig

TINY = ["--load=40", "--crop=32", "--ngf=4", "--blocks=1", "--ndf=4", "--batch=5", "--device=cpu", "--precision=fp32"]
TINY += ["--no-compile"]


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(commands, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_from_two_folders_to_two_model_files(domains: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "SIDE", 64)
    invoke("fit", domains, "--out", tmp_path / "run", "--epochs", 1, *TINY)
    assert load_checkpoint(tmp_path / "run").steps_done == 4

    invoke("resume", tmp_path / "run", "--epochs", 1.5, "--decay-epochs", 0.5, "--load", 48, "--average", 0.9)
    resumed = load_checkpoint(tmp_path / "run")
    assert (resumed.steps_done, resumed.config.data.load) == (6, 48)

    output = invoke("export", tmp_path / "run", "--to", tmp_path, "--domain-a", "warm", "--domain-b", "cold")
    invoke("compare", tmp_path / "warm2cold.safetensors", tmp_path / "cold2warm.safetensors")
    assert output.split() == [str(tmp_path / "warm2cold.safetensors"), str(tmp_path / "cold2warm.safetensors")]

    evaluated = invoke("evaluate", tmp_path / "run", domains, "--limit", 2, "--backend", "eager")
    assert json.loads(evaluated[evaluated.index("{") :])["a_to_b"]["photos"] == 2

    photo = domains / "testA" / "00.png"
    invoke("sheet", tmp_path / "warm2cold.safetensors", photo, "--out", tmp_path / "sheet.png", "--side", 48)
    assert (tmp_path / "sheet.png").stat().st_size > 0


def test_two_folders_of_any_name_can_be_trained_on(domains: Path, tmp_path: Path) -> None:
    invoke("fit", "--a", domains / "testA", "--b", domains / "testB", "--out", tmp_path, "--epochs", 0.5, *TINY)
    assert load_checkpoint(tmp_path).facts["photos_a"] == 6


def test_defaults_of_the_command_are_those_of_the_configuration(domains: Path) -> None:
    fit = commands.commands["fit"]
    options = fit.make_context("fit", [str(domains), "--out", "run"]).params
    options.pop("out")
    config = run_config(**options)
    expected = DataConfig(
        train_a=domains / "trainA", train_b=domains / "trainB", held_out=(domains / "testA", domains / "testB")
    )
    assert config == RunConfig(data=expected)


def test_no_data_is_a_usage_error() -> None:
    result = CliRunner().invoke(commands, ["fit", "--out", "run"])
    assert result.exit_code == 2
    assert "Give DATA, or both --a and --b." in result.output


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="There is no folder"):
        invoke("fit", tmp_path / "none", "--out", tmp_path / "run", *TINY)


@pytest.mark.parametrize(
    ("option", "reason"), [("--ngf", "--ngf must be a whole number"), ("--blocks", "--blocks must")]
)
def test_an_impossible_architecture_is_an_error(option: str, reason: str, domains: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=reason):
        invoke("fit", domains, "--out", tmp_path / "run", option, "0")


def test_an_output_that_cannot_be_created_is_an_error(domains: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError, match=r'Cannot write to ".*file/run": Not a directory'):
        invoke("fit", domains, "--out", tmp_path / "file/run", *TINY)


def test_options_that_generators_decide_are_refused_beside_start_from(tmp_path: Path) -> None:
    arguments = ["fit", str(tmp_path), "--out", str(tmp_path / "run"), "--start-from", "a.safetensors", "--ngf", "32"]
    result = CliRunner().invoke(commands, arguments)
    assert result.exit_code == 2
    assert "--ngf is decided by the generators" in result.output


def test_a_generator_to_start_from_that_does_not_exist_is_an_error(domains: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no model"):
        invoke("fit", domains, "--out", tmp_path / "run", "--start-from", "nothing.safetensors")


def test_an_interrupted_run_is_continued_by_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trainer.cli.commands.main", interrupted)
    monkeypatch.setattr("engine.cli.main.prepare_process", lambda: None)
    monkeypatch.setattr("engine.cli.main.signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert "run `solstice-train resume RUN`" in capsys.readouterr().err
