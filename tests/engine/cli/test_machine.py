"""Facts that `solstice doctor` finds on this machine, and its advice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from engine.cli.machine import examine
from engine.config import GenerateConfig
from engine.model.weights import Generator
from engine.runtime.select import choose_backend


def test_every_fact_has_a_value() -> None:
    machine = examine()

    assert {
        "NVIDIA driver",
        "GPU",
        "PyTorch",
        "TensorRT",
        "DALI",
        "nvJPEG",
        "nvImageCodec",
        "C++ compiler",
        "bf16",
    } <= set(machine.facts)
    assert all(machine.facts.values())


@pytest.mark.needs_cuda
def test_the_backend_of_a_large_run_on_a_gpu_can_be_built(generator: Generator, tmp_path: Path) -> None:
    """On a CPU, test_background.py compares the backend with that of a large run."""
    name, precision, _, device = examine().backend.split()

    backend, _ = choose_backend(generator, GenerateConfig(backend=name, device=device, cache=tmp_path))  # type: ignore[arg-type]

    assert (backend.name, backend.precision) == (name, precision)


def test_a_missing_compiler_gives_advice_to_install_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")

    machine = examine()

    assert machine.facts["C++ compiler"] == "none"
    assert any("apt install g++" in sentence for sentence in machine.advice)
    if not torch.cuda.is_available():
        assert machine.backend == "eager fp32 on cpu"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_gives_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv("SOLSTICE_CACHE", str(tmp_path / "cache"))

    machine = examine()

    assert "cannot be written" in machine.facts["cache"]
    assert any("SOLSTICE_CACHE" in sentence for sentence in machine.advice)


def test_an_nvidia_smi_that_fails_counts_as_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho NVIDIA-SMI has failed >&2\nexit 9\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    assert examine().facts["NVIDIA driver"] == "none"


def test_a_driver_that_pytorch_cannot_use_gives_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine's GPU works")
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 580.65.06\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    machine = examine()

    assert machine.facts["NVIDIA driver"] == "580.65.06"
    assert any(sentence.startswith("There is an NVIDIA driver, but") for sentence in machine.advice)
