"""Find the packages that are installed beside this one, whatever else has their names."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

HOME = Path(__file__).resolve().parents[1]
"""Folder that holds `solstice`, `engine` and `trainer`."""


def load(name: str) -> ModuleType:
    """Import `engine` or `trainer` from `HOME`, even if a module of that name comes first on `sys.path`.

    Raises `ImportError` if another module of that name has been imported already.
    """
    module = sys.modules.get(name)
    if module is None:
        return _import(name)
    if module.__file__ is None or Path(module.__file__).resolve().parent != HOME / name:
        raise ImportError(
            f"Solstice needs its own package {name}, but {module.__file__ or 'another one'} has been imported under "
            "that name; rename that file, or do not import it in the same process."
        )
    return module


def _import(name: str) -> ModuleType:
    spec = PathFinder.find_spec(name, [str(HOME)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{HOME} holds no package {name}; install solstice-engine again.")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def leave_out_current_folder() -> None:
    """Remove the current folder from `sys.path`, where `python -m` puts it first.

    Programs call this; their modules must not be replaced by files that happen to be where they are started. The
    folder stays if Solstice itself is in it, as in a checkout.
    """
    here = Path.cwd()
    sys.path[:] = [entry for entry in sys.path if here == HOME or Path(entry or ".").resolve() != here]
