"""A tiny generator exported to ONNX once."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.model.weights import Generator
from engine.runtime.export.onnx import export_onnx
from tests.once import built_once


@pytest.fixture(scope="session")
def exported(generator: Generator, run_folder: Path) -> Path:
    """Return the ONNX file of `generator`, which all test processes share."""

    def export(path: Path) -> None:
        assert export_onnx(generator, path).max_error <= 1

    return built_once(run_folder / "summer2winter.onnx", export)
