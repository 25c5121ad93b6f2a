"""Train a pair of CycleGAN generators on two folders of photos; evaluate and export them.

    photos -> crops -> step -> checkpoint -> model files
    two folders       one optimisation step   what `engine` serves

This package uses the engine's own pixels, model and file format, so that what is trained and scored is what is served.
The engine never imports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.config import DataConfig, LossConfig, MachineConfig, NetworkConfig, RunConfig, ScheduleConfig
    from trainer.export import Labels
    from trainer.loop import fit, resume
    from trainer.scoring import score

_HOMES = {
    "DataConfig": "trainer.config",
    "Labels": "trainer.export",
    "LossConfig": "trainer.config",
    "MachineConfig": "trainer.config",
    "NetworkConfig": "trainer.config",
    "RunConfig": "trainer.config",
    "ScheduleConfig": "trainer.config",
    "fit": "trainer.loop",
    "resume": "trainer.loop",
    "score": "trainer.scoring",
}

__all__ = [
    "DataConfig",
    "Labels",
    "LossConfig",
    "MachineConfig",
    "NetworkConfig",
    "RunConfig",
    "ScheduleConfig",
    "fit",
    "resume",
    "score",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import trainer` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, also those not imported yet."""
    return sorted({*globals(), *__all__})
