"""Train CycleGAN generators: the public names of `trainer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from solstice._siblings import load

if TYPE_CHECKING:
    from trainer import *  # noqa: F403 (type checkers read the names there)

_trainer = load("trainer")

__all__ = list(_trainer.__all__)


def __getattr__(name: str) -> Any:
    """Return a public name of `trainer`, imported when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'solstice.trainer' has no attribute {name!r}")
    return getattr(_trainer, name)


def __dir__() -> list[str]:
    """List the public names, also those not imported yet."""
    return sorted({*globals(), *__all__})
