"""Shared fixtures, and the markers of tests that need more than Python packages.

Such a test is skipped where its need is missing, and fails instead where SOLSTICE_REQUIRE_<NAME>=1. A new marker is a
line in `NEEDS` and one in pyproject.toml.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

# Networks of tests are tiny: on busy cores, threads would wait for each other far longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# TorchInductor believes the flags of the processor, and does not compile and run a program for each vector instruction
# set first: that takes ten seconds in every process that compiles.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")

import torch

from engine.archive.distributed.cluster import require_ray
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import Generator, load_generator, save_generator
from engine.system.compiler import find_compiler

# A shell starts background jobs with SIGINT ignored, which child processes inherit; tests of Ctrl-C would never end.
signal.signal(signal.SIGINT, signal.default_int_handler)

_TEST_PROCESS, _end_process = os.getpid(), os._exit


def _refuse_to_end_the_tests(status: int) -> NoReturn:
    """Fail a test that would end the process of all tests, which would look like a run without failures."""
    if os.getpid() == _TEST_PROCESS:
        raise AssertionError(f"a test tried to end the process of the tests with exit code {status}")
    _end_process(status)


os._exit = _refuse_to_end_the_tests

# Command-line tools of the test group stand beside the interpreter.
os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)

PHOTOS = Path(os.environ.get("SOLSTICE_PHOTOS", Path(__file__).parents[2] / "shared/data/photos"))
"""Collection of real photos, which is not part of the repository: folders of photos and INDEX.tsv."""


def can_mount() -> bool:
    """Return whether a process may mount a file system here, as root or in a user namespace."""
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]  # ends with the process
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


NEEDS: dict[str, tuple[str, Callable[[], bool], str]] = {
    "needs_cuda": ("CUDA", torch.cuda.is_available, "no NVIDIA GPU"),
    "needs_photos": ("PHOTOS", lambda: (PHOTOS / "INDEX.tsv").exists(), f"no photo collection at {PHOTOS}"),
    "needs_exiftool": ("EXIFTOOL", lambda: shutil.which("exiftool") is not None, "exiftool is not installed"),
    "needs_stunnel": (
        "STUNNEL",
        lambda: shutil.which("stunnel4") is not None and shutil.which("openssl") is not None,
        "stunnel4 or openssl is not installed",
    ),
    "needs_prometheus": ("PROMETHEUS", lambda: shutil.which("prometheus") is not None, "prometheus is not installed"),
    "needs_browser": (
        "BROWSER",
        lambda: shutil.which("chromium") is not None and shutil.which("chromedriver") is not None,
        "chromium and chromedriver are not installed",
    ),
    "needs_tensorrt_rtx": (
        "TENSORRT_RTX",
        lambda: all(importlib.util.find_spec(name) is not None for name in ("torch_tensorrt", "tensorrt_rtx")),
        "torch-tensorrt-rtx is not installed",
    ),
    "needs_triton": ("TRITON", lambda: importlib.util.find_spec("triton") is not None, "Triton is not installed"),
    "needs_openvino": (
        "OPENVINO",
        lambda: importlib.util.find_spec("openvino") is not None,
        "OpenVINO is not installed",
    ),
    "needs_helm": ("HELM", lambda: shutil.which("helm") is not None, "helm is not installed (make check-deploy)"),
    "needs_compiler": ("COMPILER", lambda: find_compiler() is not None, "no C++ compiler"),
    "needs_ray": ("RAY", lambda: importlib.util.find_spec("ray") is not None, "Ray is not installed"),
    "needs_mount": ("MOUNT", can_mount, "mounting a tmpfs is not permitted here"),
}
"""For each marker: NAME of SOLSTICE_REQUIRE_NAME, a function that returns whether it is there, the reason to skip."""


SLOWEST_FIRST = (
    "tests/stream/test_poison.py",
    "tests/engine/runtime/backends/test_inductor.py",
    "tests/stream/test_crashes.py",
    "tests/trainer/test_tiny_pair.py",
    "tests/stream/test_health.py",
    "tests/engine/runtime/test_background.py",
    "tests/deploy/test_alerts.py",
    "tests/trainer/test_gradients.py",
    "tests/faults/test_campaign.py",
    "tests/engine/cli/test_main.py",
    "tests/stream/test_bad_input.py",
    "tests/engine/archive/test_parallel.py",
    "tests/stream/test_delivery.py",
    "tests/trainer/test_scoring.py",
)
"""Test files that take longest, those that compute and those that wait by turns."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest files first where several processes share the tests: none of them is left alone with one."""
    root = Path(__file__).parents[1]
    gone = [name for name in SLOWEST_FIRST if not (root / name).exists()]
    if gone:
        raise pytest.UsageError(f"SLOWEST_FIRST in tests/conftest.py names files that do not exist: {', '.join(gone)}")
    if "PYTEST_XDIST_WORKER" in os.environ:
        ranks = {root / name: rank for rank, name in enumerate(SLOWEST_FIRST)}
        items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose need is missing, or fail it where SOLSTICE_REQUIRE_<NAME>=1."""
    for marker, (name, is_there, missing) in NEEDS.items():
        if item.get_closest_marker(marker) is None or is_there():
            continue
        if os.environ.get(f"SOLSTICE_REQUIRE_{name}") == "1":
            pytest.fail(f"{missing}, and SOLSTICE_REQUIRE_{name} is 1", pytrace=False)
        pytest.skip(missing)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a temporary folder that all processes of a test run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def photos() -> Path:
    """Return the folder of the photo collection; for tests marked `needs_photos`."""
    return PHOTOS


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a real Ray cluster of this process: one node with room for two actors.

    Its start takes seconds, so all tests share it. Their process stays connected to it.
    """
    os.environ["RAY_AUTH_MODE"] = "disabled"  # else Ray writes a token into the home folder
    require_ray()
    import ray

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short, because paths of sockets are limited
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=256 << 20,
        logging_level=logging.ERROR, _temp_dir=folder,
    )  # fmt: skip
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model file with the smallest useful generator: one block, four channels, fixed random weights."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(20)
        module = ResnetGenerator(Architecture(blocks=1, ngf=4))
    save_generator(path, module, Card(name="tiny", source_domain="summer", target_domain="winter"), torch.float32)
    return path


@pytest.fixture(scope="session")
def generator(model_file: Path) -> Generator:
    """Return the generator of `model_file`; tests must not change its module."""
    return load_generator(model_file)


@pytest.fixture
def tiny_default(model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder of a test, with a tiny `summer2winter` and no compiler, which takes long."""
    (tmp_path / "models").mkdir()
    shutil.copy(model_file, tmp_path / "models/summer2winter.safetensors")
    monkeypatch.setenv("SOLSTICE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("SOLSTICE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.chdir(tmp_path)
    return tmp_path
