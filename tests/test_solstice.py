"""`import solstice` and its commands work in every folder, also beside files that have our packages' names."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import engine
import solstice
import solstice.trainer
import trainer
from tests import ROOT


def test_the_names_are_those_of_engine_and_trainer() -> None:
    assert solstice.__all__ == [*engine.__all__, "trainer"]
    assert solstice.trainer.__all__ == trainer.__all__ == sorted(trainer.__all__)
    assert all(getattr(solstice, name) is getattr(engine, name) for name in engine.__all__)
    assert all(getattr(solstice.trainer, name) is getattr(trainer, name) for name in trainer.__all__)
    assert set(solstice.__all__) <= set(dir(solstice))
    assert set(trainer.__all__) <= set(dir(solstice.trainer)) & set(dir(trainer))


@pytest.mark.parametrize("package", [solstice, solstice.trainer, trainer])
def test_another_name_is_an_error(package: object) -> None:
    with pytest.raises(AttributeError, match="no attribute 'convrt'"):
        package.convrt  # type: ignore[attr-defined]  # noqa: B018


@pytest.fixture
def occupied(tmp_path: Path) -> Path:
    """Return a folder with files named like our packages."""
    folder = tmp_path / "occupied"
    folder.mkdir()
    for name in ("engine", "trainer"):
        (folder / f"{name}.py").write_text(f"raise RuntimeError('the wrong {name}')\n")
    return folder


def run(folder: Path, *arguments: str | Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python in `folder`, with this repository on its path after `path`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, str(ROOT))))}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "arguments", [("solstice", "models"), ("solstice", "convert", "--help"), ("solstice.trainer", "--help")]
)
def test_python_m_ignores_files_of_our_names_in_the_current_folder(arguments: tuple[str, ...], occupied: Path) -> None:
    (occupied / "json.py").write_text("raise RuntimeError('not the standard library')\n")
    done = run(occupied, "-m", *arguments)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("name", "argument"), [("solstice", "models"), ("solstice-train", "--help")])
def test_console_scripts_ignore_the_current_folder_on_the_path(
    name: str, argument: str, occupied: Path, tmp_path: Path
) -> None:
    """As pip writes them; the current folder comes first where PYTHONPATH starts with a dot or a colon."""
    home, function = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][name].split(":")
    script = tmp_path / name
    script.write_text(f"import sys\nfrom {home} import {function}\nsys.exit({function}())\n")
    done = run(occupied, script, argument, path=".")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_packages_are_importable_beside_files_of_their_names(occupied: Path) -> None:
    script = "from solstice import Size, trainer; print(Size.parse('256'), trainer.RunConfig.__module__)"
    done = run(occupied, "-c", script)
    assert (done.stdout.split(), done.stderr) == (["256", "trainer.config"], "")


@pytest.mark.parametrize("name", ["engine", "trainer"])
def test_another_module_imported_before_under_our_name_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").touch()
    done = run(tmp_path, "-c", f"import {name}, solstice.trainer")
    assert done.returncode == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith(f"ImportError: Solstice needs its own package {name}, but {tmp_path / name}.py")


def test_a_checkout_that_is_not_installed_works_from_its_own_folder() -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import sys; sys.path[0] = ''; import solstice; print(solstice.__file__)"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(ROOT / "solstice/__init__.py")


def test_importing_the_package_does_not_import_torch(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", "import sys, solstice.trainer; print('torch' in sys.modules)")
    assert done.stdout.strip() == "False"
