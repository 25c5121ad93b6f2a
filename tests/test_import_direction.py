"""Which package may import which, as a table of packages; and that a class name means one thing.

Each row lists everything that a package may import from `engine`; no module of it may import anything else. Inside a
package, imports must not form a cycle. `trainer` imports from `engine`, never the other way round.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests import ROOT

FOUNDATION = "container options config errors records flow ports testing"
"""Single files at the top of `engine`: nouns, promises and plumbing that every package may use."""

MAY_IMPORT = {
    # package: packages of `engine` that it may import
    "cli": f"bench archive stream images runtime pipeline listing batch codec model observe system {FOUNDATION}",
    "bench": f"archive stream runtime pipeline listing batch codec model observe system {FOUNDATION}",
    "archive": f"runtime pipeline listing batch codec model observe system {FOUNDATION}",
    "stream": f"runtime pipeline listing batch codec model observe system {FOUNDATION}",
    "encoded": "pipeline options config records testing errors",
    "images": "runtime batch codec model options config records",
    "runtime": "model observe system config errors",
    "pipeline": "batch codec observe system flow ports options config errors records",
    "listing": "codec system errors",
    "codec": "system options config errors records",
    "batch": "options config errors records",
    "model": "system config errors",
    "observe": "system config errors records",
    "system": "container config errors",
    "testing": "options records ports",
    "ports": "records",
    "records": "options errors",
    "config": "container options errors",
    "options": "errors",
    "container": "",
    "flow": "",
    "errors": "",
}
"""`archive` and `stream` are the two products: neither appears in the other's row."""

TRAINER_MAY_IMPORT = "cli codec model runtime system options config errors records flow"

FACADES = {"engine", "trainer", "engine.__main__", "trainer.__main__"}
"""Entry points, which may name any public thing."""

ONLY_IN = {
    "ray": "engine.archive.distributed",
    "PIL": "engine.codec engine.images engine.archive.report trainer.sheets",
    "fsspec": "engine.system.storage engine.stream",
    "imagecodecs": "engine.codec",
    "jinja2": "engine.archive.report",
    "kafka": "engine.stream",
    "nvidia": "engine.codec",
    "pillow_heif": "engine.codec",
    "pillow_jxl": "engine.codec",
    "prometheus_client": "engine.observe.prometheus",
    "rawpy": "engine.codec",
    "simplejpeg": "engine.bench engine.codec",
    "tifffile": "engine.codec",
    "onnxruntime": "engine.model.onnx_run engine.runtime.export benchmarks",
    "openvino": "engine.runtime.backends.openvino benchmarks",
    "triton": "engine.runtime.backends.trunk engine.runtime.backends.trunk_kernels",
    "torch_tensorrt": "engine.runtime.backends.tensorrt",
}
"""Libraries that stay behind a few packages or modules."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PACKAGES = ("engine", "trainer", "solstice")

MODULES = {module_name(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}


def package_of(module: str) -> str:
    """Return the second part of a module's name: `codec` for `engine.codec.metadata.read`."""
    return module.split(".")[1]


def imported(module: str) -> Iterator[str]:
    """Yield everything that a module imports anywhere, also inside functions, by full name."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively; name the package"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def own(module: str) -> set[str]:
    """Return the modules of this repository that `module` imports."""
    return {other for other in imported(module) if other in MODULES}


ENGINE = sorted(module for module in MODULES if module.startswith("engine.") and module not in FACADES)
TRAINER = sorted(module for module in MODULES if module.startswith("trainer.") and module not in FACADES)


def test_every_package_has_a_row() -> None:
    assert {package_of(module) for module in ENGINE} == set(MAY_IMPORT)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_its_row_allows(package: str) -> None:
    allowed = {package, *MAY_IMPORT[package].split()}
    for module in ENGINE:
        if package_of(module) == package:
            for other in own(module):
                assert other.startswith("engine."), f"{module} may not import {other}"
                assert package_of(other) in allowed, f"{module} may not import {other}"


def test_the_rows_have_no_cycle() -> None:
    order = list(TopologicalSorter({name: row.split() for name, row in MAY_IMPORT.items()}).static_order())
    assert order[-1] == "cli"


def test_the_two_products_never_import_each_other() -> None:
    assert "stream" not in MAY_IMPORT["archive"].split()
    assert "archive" not in MAY_IMPORT["stream"].split()


@pytest.mark.parametrize("modules", [ENGINE, TRAINER], ids=["engine", "trainer"])
def test_modules_do_not_import_each_other_in_a_circle(modules: list[str]) -> None:
    try:
        TopologicalSorter({module: own(module) & set(modules) for module in modules}).prepare()
    except CycleError as error:
        pytest.fail(f"imported in a circle: {' -> '.join(error.args[1])}")


def test_nothing_imports_the_package_of_public_names() -> None:
    for module in (*ENGINE, *TRAINER):
        assert not [other for other in own(module) if other.startswith("solstice")], module


def test_the_trainer_imports_only_these_packages_of_the_engine() -> None:
    taken = {package_of(other) for module in TRAINER for other in own(module) if other.startswith("engine.")}
    assert taken <= set(TRAINER_MAY_IMPORT.split())


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_stays_where_it_belongs(library: str) -> None:
    homes = tuple(ONLY_IN[library].split())
    users = [module for module in MODULES if any(name.split(".")[0] == library for name in imported(module))]
    assert users, f"nothing imports {library} any more; remove its row"
    for user in users:
        assert any(user == home or user.startswith(f"{home}.") for home in homes), f"{user} may not import {library}"


def test_translating_needs_no_queue_no_exporter_and_no_trainer() -> None:
    """The heavy and the optional are imported where they are used, not before."""
    script = "import sys, engine.archive.convert; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())
    assert "engine.archive.convert" in loaded
    assert not loaded & {
        "kafka",
        "prometheus_client",
        "nvidia.dali",
        "torch_tensorrt",
        "triton",
        "pillow_heif",
        "trainer",
    }


def test_a_class_name_means_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for module in MODULES:
        for node in ast.walk(ast.parse(MODULES[module].read_text())):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}
