"""How to install an optional package of Solstice."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

PACKAGE = "solstice-engine"


def install_hint(extra: str) -> str:
    """Return the command that installs an extra where Solstice itself comes from: a checkout, or a package index."""
    checkout = _checkout()
    if checkout is None:
        return f"pip install '{PACKAGE}[{extra}]'"
    here = checkout == Path.cwd()
    return f"pip install -e '{'.' if here else checkout}[{extra}]'"


@lru_cache(maxsize=1)
def _checkout() -> Path | None:
    """Return the folder of the source code if Solstice runs from it; None if it is installed as a package."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "engine").is_dir() else None
