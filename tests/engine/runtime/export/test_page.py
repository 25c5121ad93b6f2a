"""Run the Python examples of docs/generators.md on exported files and compare their shapes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.config import GenerateConfig
from engine.model.card import Card
from engine.model.export import save_checkpoint
from engine.model.weights import Generator
from engine.runtime.export.package import export_package
from tests import ROOT

ONNX, TORCH, PACKAGE = re.findall(r"```python\n(.*?)```", (ROOT / "docs/generators.md").read_text(), re.DOTALL)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_onnx(exported: Path, folder: Path) -> None:
    shutil.copy(exported, folder / "summer2winter.onnx")
    names: dict[str, Any] = {}
    exec(ONNX, names)
    assert (names["translated"].shape, names["translated"].dtype) == ((1, 256, 320, 3), "uint8")


def test_torch(generator: Generator, model_file: Path, folder: Path) -> None:
    save_checkpoint(folder / "latest_net_G_A.pth", generator.module)
    names: dict[str, Any] = {"model": model_file}
    exec(TORCH, names)
    assert names["made"].shape == (1, 3, 256, 256)


@pytest.mark.needs_compiler
def test_package(generator: Generator, own_cache: Path, folder: Path) -> None:
    export_package(generator, folder / "summer2winter.pt2", GenerateConfig(device="cpu", cache=own_cache))
    names: dict[str, Any] = {}
    exec(PACKAGE, names)
    assert names["translated"].shape == (1, 256, 320, 3)
    assert Card.from_json(names["card"]) == generator.card
