from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.bench.generator import batch_at, lanes, start
from engine.config import CPU_BATCH, GPU_BATCH, GenerateConfig
from engine.model.weights import Generator
from engine.system.device import fastest_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def test_batches_shrink_with_the_size_of_the_images() -> None:
    assert batch_at(256, CPU) == CPU_BATCH
    assert batch_at(256, GPU) == GPU_BATCH
    assert batch_at(4096, GPU) == batch_at(4096, CPU) == 1


def test_a_gpu_has_several_batches_under_way_and_a_cpu_one() -> None:
    assert lanes(GPU) > lanes(CPU) == 1


@pytest.mark.needs_compiler
def test_a_start_reports_whether_it_compiled(generator: Generator, tmp_path: Path) -> None:
    config = GenerateConfig(device="cpu", backend="inductor", precision=fastest_precision(CPU), cache=tmp_path)  # type: ignore[arg-type]

    first, second = (start(generator, config, CPU).to_document() for _ in range(2))

    assert (first["compiled"], second["compiled"]) == (True, False)
    assert "inductor" in first["backend"]


def test_an_eager_start_compiles_nothing(generator: Generator, tmp_path: Path) -> None:
    started = start(generator, GenerateConfig(device="cpu", backend="eager", cache=tmp_path / "none"), CPU)

    assert not started.compiled
    assert started.backend_s >= 0
    assert started.first_batch_s > 0
