"""Every example runs, with a tiny model in the place of the shipped one."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import ROOT
from tests.images import photo

EXAMPLES = ROOT / "examples"

Run = Callable[..., str]


@pytest.fixture
def folder(tiny_default: Path) -> Path:
    """Return the current folder of an example: it has photos in `samples`, of which one is damaged, and a model."""
    (tiny_default / "samples").mkdir()
    for name, data in {"cliff.jpg": photo(64, 48), "b.jpg": photo(48, 64, 1), "c.jpg": b"no photo"}.items():
        (tiny_default / "samples" / name).write_bytes(data)
    return tiny_default


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs an example in this process and returns what it printed."""

    def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_every_example_is_in_the_readme_and_in_a_test() -> None:
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    here, readme = Path(__file__).read_text(), (EXAMPLES / "README.md").read_text()
    assert len(files) == 5
    assert [name for name in files if f"]({name})" not in readme or f'"{name}"' not in here] == []


def test_in_memory(folder: Path, run: Run) -> None:
    assert run("in_memory.py").splitlines() == [
        "winter.png: 64x48",
        "frames: (3, 96, 128, 3) uint8",
        "a list of two sizes: (80, 64) (160, 120)",
    ]
    assert (folder / "winter.png").exists()


def test_folder(folder: Path, run: Run) -> None:
    first, second, failure = run("folder.py").splitlines()
    assert first == "first run: 2 converted, 0 already done, 1 failed"
    assert second == "second run: 0 converted, 2 already done, 1 failed"
    assert failure.startswith("c.jpg ")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_notebook(folder: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    assert all(not cell.get("outputs") for cell in notebook.cells), "outputs are not part of the repository"
    done = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    assert "image/png" in done.cells[-1].outputs[0].data
    assert "summer2winter" in done.cells[1].outputs[0].data["text/plain"]


@pytest.mark.needs_ray
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_ray(folder: Path, run: Run, model_file: Path, ray_address: str) -> None:
    shown = run("ray_data.py", "samples", "winter", "--model", str(model_file)).splitlines()
    assert shown[-1] == "2 photos translated"
    assert [line.split(":")[0] for line in shown if line.startswith("c.jpg")] == ["c.jpg"]
    assert sorted(path.name for path in (folder / "winter").iterdir()) == ["b.jpg", "cliff.jpg"]


def test_training_to_serving(folder: Path, run: Run) -> None:
    *_, exported, translated = run("train_and_convert.py", "work", "--epochs", "0.25").splitlines()
    assert exported == "exported warm2cold.safetensors and cold2warm.safetensors"
    assert translated == "8 photos translated by warm2cold"
    assert len(list((folder / "work/cold").glob("*.png"))) == 8
