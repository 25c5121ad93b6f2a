"""Links that somebody planted in an output folder lead nowhere, whatever runs there."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.archive.convert import convert
from engine.config import GenerateConfig, PipelineConfig
from engine.errors import SetupError
from engine.options import Options, Size
from tests.images import photo

CONFIG = PipelineConfig(
    options=Options(size=Size.parse("native")), generate=GenerateConfig(backend="eager", device="cpu")
)


def test_convert_writes_nothing_through_a_linked_folder(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "src/2024").mkdir(parents=True)
    for name in ("a.jpg", "2024/b.jpg"):
        (tmp_path / "src" / name).write_bytes(photo())
    (tmp_path / "other").mkdir()
    (tmp_path / "dst").mkdir()
    (tmp_path / "dst/2024").symlink_to(tmp_path / "other")
    summary = convert(tmp_path / "src", tmp_path / "dst", model_file, CONFIG)
    assert (summary.converted, summary.failed) == (1, 1)
    assert "2024 is a symbolic link" in summary.failures[0]["error"]
    assert list((tmp_path / "other").iterdir()) == []


def test_convert_refuses_a_planted_lock_and_leaves_its_target(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/a.jpg").write_bytes(photo())
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "dst/.solstice").mkdir(parents=True)
    (tmp_path / "dst/.solstice/lock").symlink_to(tmp_path / "precious")
    with pytest.raises(SetupError, match="lock is a symbolic link"):
        convert(tmp_path / "src", tmp_path / "dst", model_file, CONFIG)
    assert (tmp_path / "precious").read_bytes() == b"precious"
