from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from engine.config import GenerateConfig
from engine.errors import BackendUnavailable, SetupError
from engine.model.weights import Generator
from engine.runtime.backends import inductor
from engine.runtime.backends.eager import eager_key
from engine.runtime.backends.inductor import package_key
from engine.runtime.cache import PackageCache
from engine.runtime.parity import MIN_PSNR_DB
from engine.runtime.select import choices, choose_backend, measured_rates
from engine.system.device import has_bf16

CPU = torch.device("cpu")


def config(tmp_path: Path, **changes: object) -> GenerateConfig:
    return GenerateConfig(device="cpu", precision="fp32", cache=tmp_path, **changes)  # type: ignore[arg-type]


def names(generator: Generator, config: GenerateConfig, tmp_path: Path) -> list[str]:
    return [str(choice) for choice in choices(generator, config, CPU, PackageCache(tmp_path))]


def pretend_compiled(generator: Generator, tmp_path: Path, **notes: object) -> None:
    store, key = PackageCache(tmp_path), package_key(generator, "fp32", CPU)

    def write(path: Path) -> None:
        path.write_bytes(b"a package")

    store.get_or_build(key, write)
    store.note(key, **notes)


def test_few_images_are_not_compiled_for(generator: Generator, tmp_path: Path) -> None:
    assert names(generator, config(tmp_path, expected_pixels=10 * 256 * 256), tmp_path) == ["eager fp32"]


@pytest.mark.skipif(not has_bf16(), reason="this CPU computes bfloat16 in software")
def test_few_images_take_the_fast_type_where_the_gate_lets_it(generator: Generator, tmp_path: Path) -> None:
    backend, reason = choose_backend(generator, GenerateConfig(device="cpu", cache=tmp_path, expected_pixels=1))

    assert (backend.name, backend.precision) == ("eager", "bf16")
    assert "too few images" in reason
    assert PackageCache(tmp_path).notes(eager_key(generator, "bf16", CPU))["parity"]["psnr_db"] >= MIN_PSNR_DB


def test_rounding_that_the_gate_refuses_leaves_eager_fp32(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parity kept from before stands for a generator that bfloat16 ruins."""
    monkeypatch.setattr("engine.runtime.select.fastest_precision", lambda _: "bf16")
    PackageCache(tmp_path).note(eager_key(generator, "bf16", CPU), parity={"psnr_db": 31.0, "max_error": 90})

    backend, reason = choose_backend(generator, GenerateConfig(device="cpu", cache=tmp_path, expected_pixels=1))

    assert (backend.name, backend.precision) == ("eager", "fp32")
    assert "eager bf16 was refused (31.0 dB, largest error 90 of 255)" in reason


def test_eager_that_was_asked_for_is_the_reference(generator: Generator, tmp_path: Path) -> None:
    backend, _ = choose_backend(generator, GenerateConfig(backend="eager", device="cpu", cache=tmp_path))

    assert (backend.name, backend.precision) == ("eager", "fp32")


@pytest.mark.needs_compiler
def test_many_images_are_compiled_for_with_eager_fp32_to_fall_back_on(generator: Generator, tmp_path: Path) -> None:
    assert names(generator, config(tmp_path), tmp_path) == ["inductor fp32", "eager fp32"]


@pytest.mark.needs_compiler
def test_what_is_compiled_is_taken_even_for_few(generator: Generator, tmp_path: Path) -> None:
    pretend_compiled(generator, tmp_path)

    first, *_ = choices(generator, config(tmp_path, expected_pixels=1), CPU, PackageCache(tmp_path))

    assert (first.name, first.why) == ("inductor", "already compiled for this machine")


@pytest.mark.needs_compiler
@pytest.mark.parametrize("faster", ["eager", "inductor"])
def test_what_was_measured_faster_is_taken(generator: Generator, tmp_path: Path, faster: str) -> None:
    pretend_compiled(generator, tmp_path, rates={"eager": 5.0, "inductor": 5.0} | {faster: 9.5})

    first, *_ = choices(generator, config(tmp_path), CPU, PackageCache(tmp_path))

    assert (first.name, first.why) == (faster, "measured fastest here, 9.5 images/s")


@pytest.mark.needs_compiler
def test_a_backend_that_is_no_longer_installed_is_not_taken_for_its_rate(generator: Generator, tmp_path: Path) -> None:
    pretend_compiled(generator, tmp_path, rates={"inductor": 5.0, "tensorrt": 900.0})

    assert measured_rates(generator, config(tmp_path), CPU, PackageCache(tmp_path)) == {"inductor": 5.0}


def test_without_a_compiler_auto_goes_on_and_says_so(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")

    with caplog.at_level(logging.WARNING):
        backend, reason = choose_backend(generator, config(tmp_path))

    assert backend.name == "eager"
    assert "install g++" in caplog.text
    assert "no C++ compiler" in reason


def test_a_backend_that_was_asked_for_and_cannot_be_had_stops_the_run(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")

    with pytest.raises(SetupError, match="g\\+\\+"):
        choose_backend(generator, config(tmp_path, backend="inductor"))
    with pytest.raises(SetupError, match="NVIDIA GPU"):
        choose_backend(generator, config(tmp_path, backend="tensorrt"))


@pytest.mark.needs_compiler
def test_auto_takes_the_next_backend_when_compiling_fails(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise BackendUnavailable("Backend inductor could not compile: no space left.")

    monkeypatch.setattr(inductor, "_compile", fail)

    with caplog.at_level(logging.WARNING):
        backend, reason = choose_backend(generator, config(tmp_path))

    assert backend.name == "eager"
    assert "no space left. Another backend is taken." in caplog.text
    assert "inductor fp32 could not be built" in reason
