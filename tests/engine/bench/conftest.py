"""One real run of the command with everything as small as possible, shared by the tests of what is made of it."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

import engine.cli.bench
from engine.bench.config import PHONE, Effort
from engine.bench.document import Document, load

TINY_PHOTO = replace(PHONE, name="tiny photos", width=96, height=64, size="32", different=2, min_images=2)
TINY = Effort(rounds=2, measured_s=0.01, run_s=0.02, batches=(1, 2), sides=(32, 64), workloads=(TINY_PHOTO,), jobs=40)


@dataclass(frozen=True)
class TinyRun:
    """What one run of `solstice bench` printed and wrote."""

    exit_code: int
    printed: str
    pictures: tuple[str, ...]
    document: Document


@cache
def tiny_run() -> TinyRun:
    """Run `solstice bench --quick` once in this test session, with a tiny network and in a few seconds."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.cli.bench, "QUICK", TINY)
        options = ["--quick", "--ngf", "4", "--backend", "eager", "--device", "cpu"]
        files = ["--json", f"{folder}/run.json", "--pictures", f"{folder}/pictures"]
        result = CliRunner().invoke(engine.cli.bench.bench, [*options, *files], catch_exceptions=False)
        pictures = tuple(sorted(path.name for path in Path(folder, "pictures").iterdir()))
        return TinyRun(result.exit_code, result.stdout, pictures, load(Path(folder, "run.json")))


@pytest.fixture(scope="session")
def measured() -> Document:
    """Return the document of one run; nothing may change it."""
    return tiny_run().document


@pytest.fixture
def document() -> Document:
    """Return a copy that a test may change."""
    return copy.deepcopy(tiny_run().document)
