"""Translate images with CycleGAN generators, in bulk and fast.

The public names are those of `engine`, and `solstice.trainer` has those of `trainer`. This package always finds these
two where it is installed itself, also in a folder that holds an `engine.py` or a `trainer.py` of its own.

    >>> import solstice
    >>> summary = solstice.convert("photos", "winter", "summer2winter")
    >>> winter = solstice.Translator("summer2winter").translate(summer)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from solstice._siblings import load

if TYPE_CHECKING:
    from engine import *  # noqa: F403 (type checkers read the names there)
    from solstice import trainer as trainer

_engine = load("engine")

__all__ = [*_engine.__all__, "trainer"]


def __getattr__(name: str) -> Any:
    """Return a public name of `engine`, or the package `solstice.trainer`, imported when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'solstice' has no attribute {name!r}")
    return import_module("solstice.trainer") if name == "trainer" else getattr(_engine, name)


def __dir__() -> list[str]:
    """List the public names, also those not imported yet."""
    return sorted({*globals(), *__all__})
