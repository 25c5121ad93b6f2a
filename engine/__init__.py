"""Translate images with CycleGAN generators, in bulk and fast.

The map of this package is the path of the data:

    source → inspect → decode → batch → generate → restore → encode → sink
    bytes    header    uint8    uint8     uint8     uint8     bytes   stored, then acknowledged
                      [H,W,3] [N,H,W,3] [N,H,W,3]  [H,W,3]

`pipeline` is the arrow in code, `records` is what travels along it. Two products use it: `archive` (folders, tars and
object stores of photos) and `stream` (jobs on Kafka).

    >>> from engine import Translator, convert
    >>> summary = convert("photos", "winter", "summer2winter")  # files
    >>> winter = Translator("summer2winter").translate(summer)  # images in memory: PIL, NumPy, torch
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.archive.config import ArchiveConfig
    from engine.archive.convert import convert
    from engine.archive.run import Summary
    from engine.config import (
        BatchConfig,
        DecodeConfig,
        EncodeConfig,
        GenerateConfig,
        PipelineConfig,
        StoreConfig,
    )
    from engine.errors import EngineError, SetupError, SkipImage, StopRun
    from engine.images import Translator
    from engine.model.card import Architecture, Card, list_models
    from engine.model.weights import Generator, load_generator, save_generator
    from engine.options import Options, Size

_HOMES = {
    "Architecture": "engine.model.card",
    "ArchiveConfig": "engine.archive.config",
    "BatchConfig": "engine.config",
    "Card": "engine.model.card",
    "DecodeConfig": "engine.config",
    "EncodeConfig": "engine.config",
    "EngineError": "engine.errors",
    "GenerateConfig": "engine.config",
    "Generator": "engine.model.weights",
    "Options": "engine.options",
    "PipelineConfig": "engine.config",
    "SetupError": "engine.errors",
    "Size": "engine.options",
    "SkipImage": "engine.errors",
    "StopRun": "engine.errors",
    "StoreConfig": "engine.config",
    "Summary": "engine.archive.run",
    "Translator": "engine.images",
    "convert": "engine.archive.convert",
    "list_models": "engine.model.card",
    "load_generator": "engine.model.weights",
    "save_generator": "engine.model.weights",
}

__all__ = [
    "Architecture",
    "ArchiveConfig",
    "BatchConfig",
    "Card",
    "DecodeConfig",
    "EncodeConfig",
    "EngineError",
    "GenerateConfig",
    "Generator",
    "Options",
    "PipelineConfig",
    "SetupError",
    "Size",
    "SkipImage",
    "StopRun",
    "StoreConfig",
    "Summary",
    "Translator",
    "convert",
    "list_models",
    "load_generator",
    "save_generator",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import engine` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, also those not imported yet."""
    return sorted({*globals(), *__all__})
