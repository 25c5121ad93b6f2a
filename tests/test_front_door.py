"""What users touch: the names that `engine` exports, and the options of `solstice convert`."""

from __future__ import annotations

import inspect
import subprocess
import sys

import click
import pytest

import engine
from engine.cli.convert import convert
from engine.config import BatchConfig, DecodeConfig, EncodeConfig, GenerateConfig
from engine.options import Options
from tests import ROOT

NAMES = [
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

OPTIONS = [
    "--allow-damaged",
    "--backend",
    "--batch",
    "--decode",
    "--detail",
    "--device",
    "--devices",
    "--format",
    "--gpu-encode-from",
    "--json",
    "--keep-profile",
    "--lossless",
    "--max-pixels",
    "--memory",
    "--metrics-host",
    "--metrics-port",
    "--model",
    "--overwrite",
    "--precision",
    "--progressive",
    "--quality",
    "--report",
    "--size",
    "--strip",
    "--subsampling",
    "--times",
]


def test_the_exported_names_are_these() -> None:
    assert list(engine.__all__) == NAMES == sorted(NAMES)
    assert set(engine._HOMES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_name_is_there_and_documented(name: str) -> None:
    thing = getattr(engine, name)
    assert inspect.getdoc(thing), name
    assert thing.__module__ == engine._HOMES[name]


def test_another_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'convrt'"):
        engine.convrt  # noqa: B018


def test_importing_the_package_alone_is_quick_and_light() -> None:
    script = "import sys, engine; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_the_package_is_typed() -> None:
    for package in ("engine", "trainer"):
        assert (ROOT / package / "py.typed").exists()


def test_the_options_of_convert_are_these() -> None:
    """Scripts depend on them: add to this list, rename nothing in it."""
    options = [name for p in convert.params if isinstance(p, click.Option) for name in p.opts if name.startswith("--")]
    assert sorted(options) == OPTIONS


def test_a_default_is_the_fields_default() -> None:
    fields = {
        "format": Options().format,
        "quality": EncodeConfig().quality,
        "subsampling": EncodeConfig().subsampling,
        "batch": BatchConfig().size,
        "backend": GenerateConfig().backend,
        "precision": GenerateConfig().precision,
        "device": GenerateConfig().device,
        "max_pixels": DecodeConfig().max_pixels,
    }
    assert {p.name: p.default for p in convert.params if p.name in fields} == fields
