from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.config import GenerateConfig
from engine.model.weights import Generator
from engine.runtime.backends.inductor import package_key
from engine.runtime.cache import PackageCache
from engine.runtime.rates import images_per_s, measure_backends
from engine.runtime.select import measurable
from engine.runtime.translator import BatchTranslator

CPU = torch.device("cpu")


@pytest.mark.needs_compiler
def test_every_backend_is_timed_and_auto_uses_the_fastest(generator: Generator, own_cache: Path) -> None:
    config = GenerateConfig(device="cpu", precision="fp32", cache=own_cache, sides=(32, 64))

    rows = list(measure_backends(generator, config))

    assert [(row.backend, row.side) for row in rows] == [(name, side) for name in measurable(CPU) for side in (32, 64)]
    assert all(row.images_per_s is not None and row.images_per_s > 0 for row in rows)
    rates = PackageCache(own_cache).notes(package_key(generator, "fp32", CPU))["rates"]
    assert rates == {row.backend: row.images_per_s for row in rows if row.side == 32}
    translator = BatchTranslator(generator, config)
    assert translator.backend.name == max(rates, key=lambda name: rates[name])
    assert "measured fastest here" in translator.reason


def test_the_row_of_an_unavailable_backend_has_the_reason(generator: Generator, tmp_path: Path) -> None:
    config = GenerateConfig(device="cpu", cache=tmp_path, sides=(32,))

    (row,) = measure_backends(generator, config, ("tensorrt",))

    assert row.images_per_s is None
    assert "needs an NVIDIA GPU" in row.note


def test_a_rate_is_images_per_second() -> None:
    calls: list[torch.Size] = []

    def translate(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(pixels.shape)
        return pixels

    rate = images_per_s(translate, batch=3, side=16, measured_s=0.0)

    assert calls == [(3, 16, 16, 3)] * 3  # one to warm up, at least two that are timed
    assert rate > 0
