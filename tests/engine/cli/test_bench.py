from __future__ import annotations

import copy
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import engine.cli.bench
from engine.bench.document import save
from engine.bench.timing import Spread
from engine.errors import SetupError
from engine.system.extras import install_hint
from tests.engine.bench.conftest import TinyRun
from tests.engine.bench.conftest import tiny_run as tiny_run


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(engine.cli.bench.bench, [*map(str, arguments)], catch_exceptions=False)


def test_a_run_prints_tables_and_writes_the_document_and_pictures(tiny_run: TinyRun) -> None:
    assert tiny_run.exit_code == 0
    assert "files to files" in tiny_run.printed
    assert "matrix product, fp32" in tiny_run.printed
    assert tiny_run.pictures == ("batch.png", "size.png", "stages.png")
    assert tiny_run.document["settings"]["model"] == "random-ngf4"


def test_compare_marks_changes_without_measuring(tiny_run: TinyRun, tmp_path: Path) -> None:
    faster = copy.deepcopy(tiny_run.document)
    rates = Spread.from_document(faster["generator"]["reference_images_per_s"]).scaled(50)
    faster["generator"]["reference_images_per_s"] = rates.to_document()
    save(tiny_run.document, tmp_path / "before.json")
    save(faster, tmp_path / "after.json")

    result = bench("--compare", tmp_path / "before.json", tmp_path / "after.json")

    assert result.exit_code == 0
    assert "before" in result.stdout
    assert "better" in result.stdout


def test_compare_refuses_a_file_that_is_not_a_document(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")

    with pytest.raises(SetupError, match=r"a\.json is not a document of `solstice bench`"):
        bench("--compare", tmp_path / "a.json", tmp_path / "a.json")


def test_a_missing_folder_for_the_document_is_refused_before_measuring(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="there is no folder"):
        bench("--json", tmp_path / "missing" / "run.json")


def test_without_matplotlib_a_line_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The model does not exist, so that nothing is measured."""
    monkeypatch.setattr(engine.cli.bench, "can_draw", lambda: False)
    runner = CliRunner()

    result = runner.invoke(
        engine.cli.bench.bench, ["--pictures", str(tmp_path), "--model", "no-such-model"], catch_exceptions=True
    )

    assert f"No pictures will be drawn: {install_hint('bench')} adds matplotlib." in result.stderr
    assert isinstance(result.exception, SetupError)


def test_help_lists_the_options() -> None:
    text = bench("--help").stdout

    for option in ("--device", "--model", "--ngf", "--quick", "--json", "--pictures", "--compare", "--stream"):
        assert option in text
