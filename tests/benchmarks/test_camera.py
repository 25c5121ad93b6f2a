from __future__ import annotations

import argparse
import ast
from pathlib import Path

from benchmarks.camera import SCRIPT, measure


def test_the_script_has_the_15_lines_that_its_name_is_quoted_with() -> None:
    lines = [line for line in SCRIPT.read_text().splitlines() if line.strip()]
    docstring = ast.parse(SCRIPT.read_text()).body[0]

    assert isinstance(docstring, ast.Expr)
    assert len(lines) - (docstring.end_lineno or 0) == 15


def test_both_ways_convert_all_photos_and_are_compared(model_file: Path, tmp_path: Path) -> None:
    arguments = argparse.Namespace(model=str(model_file), megapixels=0.3, count=2, rounds=1, backend="eager")

    result = measure(tmp_path, arguments)

    assert (result["width"], result["height"]) == (632, 476)
    assert len(list((tmp_path / "script").iterdir())) == 2
    assert len(list((tmp_path / "solstice").glob("**/*.jpg"))) == 2
    assert result["ratio"]["median"] > 0
    assert result["script"]["peak_megabytes"]["median"] > 50
