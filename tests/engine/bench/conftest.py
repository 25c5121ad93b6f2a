"""One real run of `solstice bench` with everything as small as possible, shared by the tests of its results."""

from __future__ import annotations

import copy
import pickle
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import engine.cli.bench
from engine.bench.config import PHONE, Effort
from engine.bench.document import Document, load
from tests.once import built_once

TINY_PHOTO = replace(PHONE, name="tiny photos", width=96, height=64, size="32", different=2, min_images=2)
TINY = Effort(rounds=2, measured_s=0.01, run_s=0.02, batches=(1, 2), sides=(32, 64), workloads=(TINY_PHOTO,), jobs=40)


@dataclass(frozen=True)
class TinyRun:
    """What one run of `solstice bench` printed and wrote."""

    exit_code: int
    printed: str
    pictures: tuple[str, ...]
    document: Document


@pytest.fixture(scope="session")
def tiny_run(run_folder: Path) -> TinyRun:
    """Return the run of `solstice bench --quick` that all test processes share; nothing may change it."""
    path = built_once(run_folder / "bench.pickle", lambda path: path.write_bytes(pickle.dumps(_run_bench())))
    run = pickle.loads(path.read_bytes())
    assert isinstance(run, TinyRun)
    return run


def _run_bench() -> TinyRun:
    """Run the command with a tiny network, in a few seconds."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.cli.bench, "QUICK", TINY)
        options = ["--quick", "--ngf", "4", "--backend", "eager", "--device", "cpu"]
        files = ["--json", f"{folder}/run.json", "--pictures", f"{folder}/pictures"]
        result = CliRunner().invoke(engine.cli.bench.bench, [*options, *files], catch_exceptions=False)
        pictures = tuple(sorted(path.name for path in Path(folder, "pictures").iterdir()))
        return TinyRun(result.exit_code, result.stdout, pictures, load(Path(folder, "run.json")))


@pytest.fixture(scope="session")
def measured(tiny_run: TinyRun) -> Document:
    """Return the document of one run; nothing may change it."""
    return tiny_run.document


@pytest.fixture
def document(measured: Document) -> Document:
    """Return a copy that a test may change."""
    return copy.deepcopy(measured)
