"""A tiny generator compiled by TorchInductor, once for all tests and test processes that need a package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from engine.model.weights import Generator
from engine.runtime.backends.inductor import InductorBackend
from engine.runtime.cache import PackageCache


@pytest.fixture(scope="session")
def cache(run_folder: Path) -> Path:
    """Return the package cache of `compiled`, which all test processes share; tests only read it."""
    return run_folder / "compiled"


@pytest.fixture(scope="session")
def compiled(generator: Generator, cache: Path, guessable: Path) -> InductorBackend:
    """Return the compiled `generator` in fp32. The first test process compiles it while others wait for the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(guessable))
        return InductorBackend(generator, "fp32", torch.device("cpu"), PackageCache(cache))


@pytest.fixture
def own_cache(compiled: InductorBackend, cache: Path, tmp_path: Path) -> Path:
    """Return a copy of the package cache of `compiled`, for a test that writes to it."""
    return Path(shutil.copytree(cache, tmp_path / "cache"))


@pytest.fixture(scope="session")
def guessable(run_folder: Path) -> Path:
    """Return TorchInductor's default folder, whose name other users could guess."""
    folder = run_folder / "inductor"
    folder.mkdir(exist_ok=True)
    return folder
