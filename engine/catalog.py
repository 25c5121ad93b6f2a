"""Models by name: those that come with the package, and those in the folder `$SOLSTICE_MODELS`."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from engine.errors import SetupError
from engine.weights import Generator
from engine.weights import load_generator as load_file

SUFFIX = ".safetensors"


def list_models() -> dict[str, Path]:
    """Give the file of each model that can be named; a user's own model hides a shipped one of the same name."""
    return {path.stem: path for folder in _folders() for path in sorted(folder.glob(f"*{SUFFIX}"))}


def find_model(name: str) -> Path:
    """Turn a model's name or file into its file; raises `SetupError` when there is neither."""
    if name.endswith(SUFFIX) or os.sep in name:
        if Path(name).is_file():
            return Path(name)
        raise SetupError(f"There is no model file {name}; `solstice models` lists the models that have names.")
    models = list_models()
    if name in models:
        return models[name]
    known = ", ".join(models) or "none"
    raise SetupError(f"There is no model named {name} (known: {known}); name one of these or a {SUFFIX} file.")


def load_generator(name: str | Path) -> Generator:
    """Load a generator by its name or file; raises `SetupError` when it is missing or damaged."""
    return load_file(find_model(str(name)))


def _folders() -> list[Path]:
    own = os.environ.get("SOLSTICE_MODELS")
    shipped = Path(str(resources.files("engine") / "models"))
    return [shipped, *([Path(own)] if own else [])]
