"""Fixtures that many tests share, and what happens where something that a test needs is missing.

Such a test is skipped on a laptop and fails where SOLSTICE_REQUIRE_<NAME> is 1. A new need is one line in `NEEDS` and
one in pyproject.toml.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

# Tiny networks on busy cores: threads would wait for each other a hundred times longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import Generator, load_generator, save_generator
from engine.runtime.backends.inductor import find_compiler

# A shell starts background jobs with SIGINT ignored, and child processes inherit that: tests of Ctrl-C would never end.
signal.signal(signal.SIGINT, signal.default_int_handler)

PHOTOS = Path(os.environ.get("SOLSTICE_PHOTOS", Path(__file__).parents[2] / "shared/data/photos"))
"""The shared photo collection: folders of photos and INDEX.tsv."""


def can_mount() -> bool:
    """Whether a process here may mount a file system of its own, as root or in a user namespace."""
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]  # gone with the process
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
    "needs_compiler": ("COMPILER", lambda: find_compiler() is not None, "no C++ compiler"),
    "needs_mount": ("MOUNT", can_mount, "mounting a tmpfs is not permitted here"),
}
"""For each marker: the NAME in SOLSTICE_REQUIRE_NAME, whether it is there, and what to say when it is not."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose need is missing; fail it where SOLSTICE_REQUIRE_... is 1."""
    for marker, (name, is_there, missing) in NEEDS.items():
        if item.get_closest_marker(marker) is None or is_there():
            continue
        if os.environ.get(f"SOLSTICE_REQUIRE_{name}") == "1":
            pytest.fail(f"{missing}, and SOLSTICE_REQUIRE_{name} is 1", pytrace=False)
        pytest.skip(missing)


@pytest.fixture(scope="session")
def photos() -> Path:
    """Return the folder of the shared photo collection; for tests marked `needs_photos`."""
    return PHOTOS


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a model file with the smallest useful generator: one block, four channels, fixed random weights."""
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(20)
        module = ResnetGenerator(Architecture(blocks=1, ngf=4))
    save_generator(path, module, Card(name="tiny", source_domain="summer", target_domain="winter"), torch.float32)
    return path


@pytest.fixture(scope="session")
def generator(model_file: Path) -> Generator:
    """Give the generator of `model_file`; nothing may change its module."""
    return load_generator(model_file)
