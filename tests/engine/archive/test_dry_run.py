"""A dry run prints what the run then does, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.cli.convert import convert
from tests.images import photo


@pytest.fixture
def src(tmp_path: Path) -> Path:
    src = tmp_path / "src"
    src.mkdir()
    (src / "a.png").write_bytes(photo(format="PNG"))
    (src / "a.bmp").write_bytes(photo(format="BMP"))
    (src / "b.jpg").write_bytes(photo())
    (src / "film.mov").write_bytes(b"x")
    return src


def invoke(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(convert, [str(argument) for argument in arguments])
    return done.exit_code, done.output


def tree(root: Path) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_mtime_ns) for path in root.rglob("*")}


def test_a_dry_run_prints_what_the_run_then_does(src: Path, tmp_path: Path, model_file: Path) -> None:
    run = (src, tmp_path / "dst", "--model", model_file, "--backend", "eager", "--device", "cpu", "--exclude", "c*")
    before = tree(tmp_path)
    code, output = invoke(*run, "--dry-run")
    assert code == 0, output
    assert output.startswith("3 to convert (")
    assert "0 already done, 0 would fail" in output
    assert "a.bmp: a.bmp.png" in output
    assert "Left out: 1 .mov." in output
    assert "are free" in output
    assert tree(tmp_path) == before

    code, output = invoke(*run, "--json")
    summary = json.loads(output)
    assert (summary["converted"], summary["renamed"]) == (3, {"a.bmp": "a.bmp.png"})
    (src / "c.jpg").write_bytes(photo())
    (src / "d.jpg").write_bytes(photo())
    before = tree(tmp_path)
    code, output = invoke(*run, "--dry-run", "--json")
    found = json.loads(output)
    assert (found["to_convert"], found["skipped"], found["left_out"]) == (1, 3, {".mov": 1, "excluded": 1})
    assert found["free_bytes"] > 0
    ratio = sum(p.stat().st_size for p in (tmp_path / "dst").iterdir() if p.is_file()) / sum(
        (src / name).stat().st_size for name in ("a.png", "a.bmp", "b.jpg")
    )
    assert found["expected_bytes"] == pytest.approx(found["input_bytes"] * ratio, rel=0.01)
    assert tree(tmp_path) == before


def test_what_would_fail_is_listed(src: Path, tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "dst").mkdir()
    (tmp_path / "dst/b.jpg").write_bytes(b"precious")
    code, output = invoke(src, tmp_path / "dst", "--model", model_file, "--dry-run", "--max-bytes", "2000")
    assert code == 0, output
    assert "b.jpg: b.jpg was there before the first run; --overwrite replaces it" in output
    assert "a.bmp: is larger than --max-bytes" in output
