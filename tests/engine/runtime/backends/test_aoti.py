"""Errors of compiled libraries; test_inductor.py runs real ones."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from engine.errors import BackendUnavailable
from engine.model.weights import Generator
from engine.runtime.backends.aoti import CompiledLibrary
from engine.runtime.backends.base import KernelOptions, Trunk
from engine.runtime.backends.inductor import _load_for_cpu


@pytest.mark.parametrize("trunk", ["torch", "winograd"])
def test_a_package_that_is_no_library_of_this_machine_is_unavailable(
    trunk: Trunk, generator: Generator, tmp_path: Path
) -> None:
    package = tmp_path / "package.pt2"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("data/begin.so", b"not an ELF file")
    with pytest.raises(OSError, match=r"invalid ELF header|too short"):
        CompiledLibrary(package)
    with pytest.raises(BackendUnavailable, match="cannot load its package"):
        _load_for_cpu(package, generator, "fp32", KernelOptions(trunk))


@pytest.mark.parametrize("content", [{}, {"a.so": b"", "b.so": b""}, {"readme": b"text"}])
def test_a_package_without_exactly_one_library_is_unavailable(
    content: dict[str, bytes], generator: Generator, tmp_path: Path
) -> None:
    package = tmp_path / "package.pt2"
    with zipfile.ZipFile(package, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(BackendUnavailable, match="cannot load its package"):
        _load_for_cpu(package, generator, "fp32", KernelOptions())
