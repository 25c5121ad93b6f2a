"""The command that installs an extra fits the way Solstice was installed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from engine.system.extras import install_hint
from tests import ROOT


def test_an_extra_of_a_checkout_is_installed_from_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert install_hint("s3") == "pip install -e '.[s3]'"
    monkeypatch.chdir(tmp_path)
    assert shlex.split(install_hint("s3")) == ["pip", "install", "-e", f"{ROOT}[s3]"]


def test_an_extra_of_an_installed_package_is_installed_by_name(tmp_path: Path) -> None:
    (tmp_path / "engine/system").mkdir(parents=True)
    for name in ("engine/__init__.py", "engine/system/__init__.py"):
        (tmp_path / name).touch()
    (tmp_path / "engine/system/extras.py").write_text((ROOT / "engine/system/extras.py").read_text())
    script = "from engine.system.extras import install_hint; print(install_hint('s3'))"
    shown = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "pip install 'solstice-engine[s3]'"
