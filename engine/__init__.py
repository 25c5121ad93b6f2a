"""Translate images with CycleGAN generators, in bulk and fast.

The map of this package is the way of the data:

    sources/ → inspect → decode → batch → generate → encode → sinks/
     bytes     header    uint8    uint8     uint8     bytes   stored, then acknowledged
                        [H,W,3] [N,H,W,3] [N,H,W,3]

`pipeline` is the arrow in code; `records` is what travels along it; `convert` runs it over an archive.

    >>> from engine import convert, load_generator
    >>> generator = load_generator("summer2winter")  # a name or a .safetensors file
    >>> summary = convert("photos", "winter", generator)
    >>> summary.converted, summary.failures
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.archive.convert import Summary, convert
    from engine.config import PipelineConfig
    from engine.errors import EngineError, SetupError, SkipImage, StopRun
    from engine.model.weights import Generator, load_generator
    from engine.options import Options, Size
    from engine.runtime.translator import Translator

_HOMES = {
    "EngineError": "engine.errors",
    "Generator": "engine.model.weights",
    "Options": "engine.options",
    "PipelineConfig": "engine.config",
    "SetupError": "engine.errors",
    "Size": "engine.options",
    "SkipImage": "engine.errors",
    "StopRun": "engine.errors",
    "Summary": "engine.archive.convert",
    "Translator": "engine.runtime.translator",
    "convert": "engine.archive.convert",
    "load_generator": "engine.model.weights",
}

__all__ = [
    "EngineError",
    "Generator",
    "Options",
    "PipelineConfig",
    "SetupError",
    "Size",
    "SkipImage",
    "StopRun",
    "Summary",
    "Translator",
    "convert",
    "load_generator",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import engine.records` does not load torch's compiler."""
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
