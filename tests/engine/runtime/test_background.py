"""Start a run with PyTorch's own kernels and switch to a package compiled in the background."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest
import torch

from engine.cli.machine import examine
from engine.config import GenerateConfig
from engine.model.weights import Generator
from engine.runtime import background
from engine.runtime.background import BackgroundCompilation
from engine.runtime.translator import BatchTranslator
from tests.images import psnr_db


def config(tmp_path: Path, **changes: object) -> GenerateConfig:
    return GenerateConfig(device="cpu", cache=tmp_path, **changes)  # type: ignore[arg-type]


def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (2, 64, 48, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))


def finish(compilation: BackgroundCompilation) -> None:
    assert compilation._child is not None
    compilation._child.wait(300)


@pytest.mark.needs_compiler
def test_a_long_run_switches_to_a_package_compiled_in_the_background(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "WORTH_COMPILING_S", 0.0)
    translator = BatchTranslator(generator, config(tmp_path))
    assert not translator.is_loaded, "nothing is loaded before the first image"
    before = translator(pixels())
    assert translator.backend.name == "eager"
    assert translator._compilation is not None
    finish(translator._compilation)
    with caplog.at_level(logging.INFO):
        translator(pixels())
    assert translator.backend.name == "inductor"
    monkeypatch.setattr("engine.cli.machine.choose_device", lambda _: torch.device("cpu"))
    assert examine().backend == f"inductor {translator.backend.precision} on cpu", "doctor names another backend"
    assert "compiled during this run" in translator.reason
    assert f"Changed to {translator.reason}." in caplog.text
    assert psnr_db(translator(pixels()).numpy(), before.numpy()) > 40
    later = BatchTranslator(generator, config(tmp_path))
    assert later.backend.name == "inductor", "later runs start with the package"
    assert vars(later)["_compilation"] is None


@pytest.mark.needs_compiler
@pytest.mark.parametrize(
    ("expected_pixels", "batches", "starts"),
    [(None, [1.0] * 9, False), (None, [1.0] * 11, True), (50_000, [1.0], False), (70_000, [1.0], True)],
    ids=["unbounded and young", "unbounded and long", "short", "long"],
)
def test_compiling_starts_when_the_remaining_time_justifies_it(
    expected_pixels: int | None, batches: list[float], starts: bool, generator: Generator, tmp_path: Path
) -> None:
    """At 1,000 pixels a second the threshold is 60 seconds of remaining work."""
    compilation = BackgroundCompilation(generator, config(tmp_path, expected_pixels=expected_pixels), "fp32")
    started: list[bool] = []
    compilation._start = lambda: started.append(True)  # type: ignore[method-assign]
    for seconds in batches:
        compilation.observe(int(1000 * seconds), seconds)
    assert bool(started) == starts


@pytest.mark.needs_compiler
def test_a_compiler_process_that_dies_does_not_affect_the_run(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "WORTH_COMPILING_S", 0.0)
    monkeypatch.setattr(background, "_CHILD", "raise SystemExit(3)")
    translator = BatchTranslator(generator, config(tmp_path))
    translator(pixels())
    assert translator._compilation is not None
    finish(translator._compilation)
    translator(pixels())
    assert translator.backend.name == "eager"
    assert vars(translator)["_compilation"] is None
    assert "Compiling in the background failed" in caplog.text


@pytest.mark.needs_compiler
def test_closing_stops_the_compiler_process(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "WORTH_COMPILING_S", 0.0)
    monkeypatch.setattr(background, "_CHILD", "import time; time.sleep(600)")
    compilation = BackgroundCompilation(generator, config(tmp_path), "fp32")
    compilation.observe(100, 1.0)
    assert compilation._child is not None
    started_s = time.monotonic()
    compilation.close()
    assert compilation._child.returncode != 0
    assert time.monotonic() - started_s < 60


def test_only_eager_chosen_by_auto_on_a_cpu_is_replaced(generator: Generator, tmp_path: Path) -> None:
    requested = BatchTranslator(generator, config(tmp_path, backend="eager"))
    assert requested._compilation is None


def test_without_a_compiler_nothing_is_compiled(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    translator = BatchTranslator(generator, config(tmp_path))
    assert translator.backend.name == "eager"
    assert translator._compilation is None
