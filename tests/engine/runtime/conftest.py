"""A tiny generator compiled by TorchInductor, once for all tests that need a package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.model.weights import Generator
from engine.runtime.backends.inductor import InductorBackend
from engine.runtime.cache import PackageCache


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session")
def compiled(generator: Generator, cache: Path, guessable: Path) -> InductorBackend:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(guessable))
        return InductorBackend(generator, "fp32", torch.device("cpu"), PackageCache(cache))


@pytest.fixture(scope="session")
def guessable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TorchInductor's default folder, whose name other users could guess."""
    return tmp_path_factory.mktemp("inductor")
