from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.bench.generator import _packages, batch_at, settled, start
from engine.config import CPU_BATCH, GPU_BATCH, GenerateConfig
from engine.model.weights import Generator
from engine.runtime.cache import PACKAGE

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_batches_shrink_with_the_size_of_the_images() -> None:
    assert batch_at(256, CPU) == CPU_BATCH
    assert batch_at(256, GPU) == GPU_BATCH
    assert (batch_at(512, CPU), batch_at(512, GPU)) == (CPU_BATCH // 4, GPU_BATCH // 4)
    assert batch_at(128, CPU) == CPU_BATCH
    assert batch_at(4096, GPU) == batch_at(4096, CPU) == 1


def test_packages_are_counted_wherever_they_are_in_the_cache(tmp_path: Path) -> None:
    """A start that adds one has compiled."""
    assert _packages(tmp_path / "none") == set()
    before = _packages(tmp_path)
    (tmp_path / "entry").mkdir()
    (tmp_path / "entry" / PACKAGE).write_bytes(b"")

    assert len(_packages(tmp_path) - before) == 1


def test_auto_is_settled_before_measuring_and_a_request_is_left_alone(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with `auto` changes its backend while it goes on; a measurement must not."""
    config = GenerateConfig(device="cpu", cache=tmp_path)
    eager = GenerateConfig(device="cpu", cache=tmp_path, backend="eager")
    monkeypatch.setenv("CXX", "true")

    assert settled(generator, config).backend == "inductor"
    assert settled(generator, eager) == eager

    monkeypatch.setenv("CXX", "no-such-compiler")

    assert settled(generator, config) == config


def test_an_eager_start_compiles_nothing(generator: Generator, tmp_path: Path) -> None:
    started = start(generator, GenerateConfig(device="cpu", backend="eager", cache=tmp_path / "none"), CPU)

    assert not started.compiled
    assert started.backend_s >= 0
    assert started.first_batch_s > 0
