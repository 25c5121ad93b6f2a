"""What users touch: the names that `engine` exports, the subcommands and their options."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import engine
from engine.cli.convert import convert
from engine.cli.main import COMMANDS, solstice
from engine.cli.options import SECTIONS
from engine.config import BatchConfig, DecodeConfig, EncodeConfig, GenerateConfig
from engine.options import Options
from tests import ROOT

NAMES = [
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

OPTIONS = [
    "--address",
    "--allow-damaged",
    "--backend",
    "--batch",
    "--cuda-graph",
    "--decode",
    "--depth",
    "--detail",
    "--device",
    "--devices",
    "--dry-run",
    "--exclude",
    "--format",
    "--gpu-encode-from",
    "--include",
    "--json",
    "--keep-profile",
    "--lossless",
    "--max-bytes",
    "--max-output-pixels",
    "--max-pixels",
    "--memory",
    "--metrics-host",
    "--metrics-port",
    "--model",
    "--name",
    "--on",
    "--overwrite",
    "--pages",
    "--precision",
    "--progressive",
    "--quality",
    "--ray-actors",
    "--report",
    "--shard-bytes",
    "--sidecars",
    "--size",
    "--strip",
    "--subsampling",
    "--suffix",
    "--times",
    "--trunk",
]


def test_the_exported_names_are_these() -> None:
    assert list(engine.__all__) == NAMES == sorted(NAMES)
    assert set(engine._HOMES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_exported_name_is_there_and_documented(name: str) -> None:
    thing = getattr(engine, name)
    assert inspect.getdoc(thing), name
    assert thing.__module__ == engine._HOMES[name]


def test_dir_lists_names_that_are_not_imported_yet() -> None:
    assert set(NAMES) <= set(dir(engine))


def test_another_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'convrt'"):
        engine.convrt  # noqa: B018


def test_importing_the_package_alone_is_quick_and_light() -> None:
    script = "import sys, engine; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_the_package_is_typed() -> None:
    for package in ("engine", "solstice", "trainer"):
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


COMMANDS_WITHOUT_TORCH = [
    ["--help"],
    ["--version"],
    ["convrt"],
    ["models"],
    ["models", "--verbose"],
    ["convert", "in", "out", "--model", "m", "--size", "12"],
    *([name, "--help"] for name in COMMANDS),
]


def test_help_models_and_usage_errors_do_not_import_torch() -> None:
    """In one process, since the first command that imports it is the one to name."""
    script = """
import json, sys
from click.testing import CliRunner
from engine.cli.main import solstice
for arguments in json.loads(sys.argv[1]):
    CliRunner().invoke(solstice, arguments)
    if "torch" in sys.modules:
        sys.exit(f"{arguments} imported torch")
"""
    arguments = [sys.executable, "-c", script, json.dumps(COMMANDS_WITHOUT_TORCH)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_general_help_imports_no_subcommand() -> None:
    script = "import sys; from engine.cli.main import main\ntry: main()\nfinally: print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script, "--help"], cwd=ROOT, capture_output=True, text=True)
    modules = {name for name in shown.stdout.split() if name.startswith("engine.")}
    light = {"engine.cli.output", "engine.cli.start", "engine.errors", "engine.system", "engine.system.terminal"}
    assert modules == {"engine.cli", "engine.cli.main", *light}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_general_help_shows_the_first_sentence_of_each_commands_help(name: str) -> None:
    command = solstice.get_command(click.Context(solstice), name)
    assert command is not None
    assert command.help is not None
    assert command.help.splitlines()[0] == COMMANDS[name].summary


def test_a_summary_is_never_cut() -> None:
    lines = CliRunner().invoke(solstice, ["--help"], terminal_width=60).output.split()
    assert " ".join(lines).endswith(" ".join(COMMANDS["replay"].summary.split()))
    assert not [word for word in lines if word.endswith("...") and word != "[ARGS]..."]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_text_and_a_heading(name: str) -> None:
    command = solstice.get_command(click.Context(solstice), name)
    assert command is not None
    options = [param for param in command.params if isinstance(param, click.Option)]
    assert options
    for option in options:
        assert option.help, option
        assert option.help.endswith("."), option
        assert getattr(option, "section", None) in SECTIONS, option


def test_the_help_groups_options_under_headings() -> None:
    text = CliRunner().invoke(solstice, ["convert", "--help"], terminal_width=100).output
    headings = [line.rstrip(":") for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    titles = [section.title for section in SECTIONS]
    assert [title for title in titles if title in headings] == headings
    assert {"Input", "Size and detail", "Output", "Metadata", "Speed", "Monitoring"} <= set(headings)


@pytest.mark.parametrize(("typed", "meant"), [("convrt", "convert"), ("model", "models"), ("dcotor", "doctor")])
def test_a_mistyped_command_gets_a_suggestion(typed: str, meant: str) -> None:
    done = CliRunner().invoke(solstice, [typed])
    assert done.exit_code == 2
    assert f"Did you mean '{meant}'?" in done.output
