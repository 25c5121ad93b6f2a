"""The numbers in README.md are those of the measurements."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.readme import README, fill
from benchmarks.render import read
from engine.bench.timing import Spread

MACHINE = {"cpu": "Some CPU", "cores": 2, "gpu": None}


def spread(*values: float) -> dict[str, Any]:
    return Spread(values).to_document()


PEER = {
    "result": {
        "solstice_images_per_s": spread(3.0, 3.1, 3.2),
        "reference_images_per_s": spread(1.5),
        "reference": "a loop of the same steps",
        "ratio": spread(2.0, 2.1, 2.2),
    }
}
EMPTY = "<!-- headline -->\n<!-- end of headline -->\ntext\n<!-- numbers -->\nold\n<!-- end of numbers -->\n"


def test_the_readme_shows_what_was_measured() -> None:
    text = README.read_text()
    assert text == fill(text, read()), "run `python -m benchmarks.render`"


def test_each_machine_is_a_column_and_each_figure_a_row() -> None:
    documents: dict[str, dict[str, Any]] = {
        "cpu": {"machine": MACHINE, "runs": {"peer": PEER}},
        "other": {"machine": MACHINE, "runs": {}},
    }
    filled = fill(EMPTY, documents)
    assert "old" not in filled
    assert "\ntext\n" in filled
    rows = filled.splitlines()
    assert rows[1] == "|  | Some CPU, 2 cores | Some CPU, 2 cores |"
    assert rows[3] == (
        "| 256x256, ResNet-9 ngf 64 | 3.1 (3 to 3.2) images/s, 2.1 (2 to 2.2) times the reference | not measured |"
    )
    assert "| reference implementation, one image at a time | 1.5 images/s (a loop of the same steps) |" in filled
    assert "one photo" not in filled, "a figure that no machine has is left out"


def test_a_gpu_that_nobody_measured_is_named() -> None:
    row = "| NVIDIA GPU | **not measured yet** |"
    assert row in fill(EMPTY, {"cpu": {"machine": MACHINE, "runs": {}}})
    assert row not in fill(EMPTY, {"gpu": {"machine": {**MACHINE, "gpu": "NVIDIA H200"}, "runs": {}}})


def test_a_readme_without_the_comments_is_refused() -> None:
    with pytest.raises(ValueError, match="must have one <!-- headline -->"):
        fill("nothing", {"cpu": {"machine": MACHINE, "runs": {}}})


def test_the_readme_has_the_comments_of_both_tables() -> None:
    fill(README.read_text(), {"cpu": {"machine": MACHINE, "runs": {"peer": PEER}}})
