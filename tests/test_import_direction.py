"""Who may import whom, as a table: a module imports only from rows above its own.

The rows run from what knows nothing of the rest down to the command line, and no module imports one of its own row. A
new file fails here until it is placed: put it into the first row that lies below everything it imports.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ENGINE = """
colour errors exif files flow gpu_encode guided memory metrics model pixels profiling versions fullsize.norm
    fullsize.scratch stream.offsets stream.retry
artefacts device guard health logs manifest metadata report storage upsampling weights backends.lanes
    stream.connection stream.deadletters stream.journal
backends.base
catalog embed gate prometheus records reference backends.eager backends.inductor fullsize.bands
    stream.kafka_client stream.places
config detail gpu_decode run_report backends.tensorrt fullsize.tiled sinks.base sources.base
batch decode encode inspect selection sinks.archive sinks.memory sinks.remote sources.memory stream.config
generate machine naming pipeline rates
sources.listing stream.jobs stream.residents
sources.archive sources.remote stream.ticket
archive sinks.kafka sources.kafka stream.submit
devices stream.topics stream.worker
commands.options commands.progress
commands.config_file
commands.kafka_options
commands.compile commands.convert commands.doctor commands.models commands.results commands.stream commands.submit
cli
__main__
"""
"""An indented line goes on with the row above it."""

TRAINER = """
classifier distance distributed fid history losses sampling sheets signals similarity
checkerboard config photos report
data evaluate networks
average health preview speed
step
checkpoints
export loop
scoring
cli
__main__
"""

TRAINER_MAY_IMPORT = (
    "catalog config decode errors files flow generate inspect model pixels records upsampling weights cli"
)
"""Modules of the engine; `cli` for its rules about failures. The engine imports nothing of the trainer."""

PACKAGES = {
    "trainer",
    "engine",
    *(f"engine.{name}" for name in ("backends", "commands", "fullsize", "sinks", "sources", "stream")),
}
"""Their `__init__` may name anything of their own package for type checkers, and import it only when it is used."""

ONLY_IN = {
    "PIL": "engine: colour decode embed encode inspect metadata report; trainer: sheets",
    "fsspec": "engine: storage stream.places",
    "jinja2": "engine: report",
    "kafka": "engine: sinks.kafka sources.kafka stream.kafka_client stream.topics",
    "nvidia": "engine: decode gpu_decode gpu_encode",
    "pillow_heif": "engine: inspect",
    "prometheus_client": "engine: prometheus",
    "simplejpeg": "engine: decode encode",
    "torch_tensorrt": "engine: backends.tensorrt",
}
"""Libraries that a few modules hide from all others."""


def rows(package: str, table: str) -> dict[str, int]:
    """Give the number of each module's row."""
    lines = table.strip("\n").replace("\n    ", " ").splitlines()
    return {f"{package}.{name}": number for number, line in enumerate(lines) for name in line.split()}


ROWS = rows("engine", ENGINE) | rows("trainer", TRAINER)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for package in ("engine", "trainer") for path in (ROOT / package).rglob("*.py")}


def imported(module: str) -> Iterator[str]:
    """Give everything that a module imports anywhere, also inside functions, by full name."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; name the package"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def allowed(entry: str) -> set[str]:
    parts = (part.split(":") for part in entry.split(";"))
    return {f"{package.strip()}.{name}" for package, names in parts for name in names.split()}


def test_every_module_has_its_place_and_every_place_its_module() -> None:
    assert sorted(set(MODULES) - PACKAGES) == sorted(ROWS)
    assert set(MODULES) >= PACKAGES


@pytest.mark.parametrize("module", sorted(set(MODULES) - PACKAGES))
def test_a_module_imports_only_from_rows_above_its_own(module: str) -> None:
    package = module.split(".")[0]
    for other in imported(module):
        if other.split(".")[0] == package and other in MODULES:
            assert other not in PACKAGES, f"{module} imports {other}; name the module that has it"
            assert ROWS[other] < ROWS[module], f"{module} may not import {other}"


def test_the_engine_does_not_know_the_trainer() -> None:
    users = [
        module for module in MODULES if module.startswith("engine") for other in imported(module) if "trainer" in other
    ]
    assert users == []


def test_the_trainer_takes_few_things_from_the_engine() -> None:
    may = {f"engine.{name}" for name in TRAINER_MAY_IMPORT.split()}
    taken = {
        other
        for module in MODULES
        if module.startswith("trainer")
        for other in imported(module)
        if other.split(".")[0] == "engine"
    }
    assert taken <= may


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_stays_where_it_belongs(library: str) -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == library for name in imported(module))}
    assert users == allowed(ONLY_IN[library])


def test_translating_needs_no_queue_no_exporter_and_no_trainer() -> None:
    """The heavy and the optional are imported where they are used, not before."""
    script = "import sys, engine.archive; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())
    assert "engine.archive" in loaded
    assert not loaded & {"kafka", "prometheus_client", "nvidia.dali", "torch_tensorrt", "pillow_heif", "trainer"}
