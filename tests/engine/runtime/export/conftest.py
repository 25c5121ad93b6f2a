"""A tiny generator exported to ONNX once."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.model.weights import Generator
from engine.runtime.export.onnx import export_onnx


@pytest.fixture(scope="session")
def exported(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "summer2winter.onnx"
    assert export_onnx(generator, path).max_error <= 1
    return path
