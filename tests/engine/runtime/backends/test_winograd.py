"""Compile a tiny generator in parts and compare it with eager; test_winograd.py of the model checks the parts."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from engine.model.weights import Generator
from engine.runtime.backends.base import KernelOptions
from engine.runtime.backends.eager import EagerBackend
from engine.runtime.backends.inductor import InductorBackend
from engine.runtime.backends.winograd import join_parts
from engine.runtime.cache import PackageCache
from tests.engine.runtime.backends.test_inductor import pictures

CPU = torch.device("cpu")


@pytest.mark.needs_compiler
@pytest.mark.timeout(600)
def test_a_package_in_parts_equals_eager_for_every_shape(generator: Generator, run_folder: Path) -> None:
    """Sides whose quarters are odd have tiles that are partly outside of the image."""
    packages = PackageCache(run_folder / "winograd")
    winograd = InductorBackend(generator, "fp32", CPU, packages, options=KernelOptions("winograd"))
    eager = EagerBackend(generator, "fp32", CPU)
    for shape in ((1, 16, 16), (1, 20, 28), (3, 64, 48), (2, 128, 100), (1, 132, 16)):
        x = pictures(*shape)
        assert (winograd(x).int() - eager(x).int()).abs().max() <= 1


def test_the_libraries_of_parts_are_joined_under_their_names(tmp_path: Path) -> None:
    for part in ("begin", "add"):
        with zipfile.ZipFile(tmp_path / f"{part}.pt2", "w") as archive:
            archive.writestr(f"{part}/data/x.wrapper.so", part)
            archive.writestr(f"{part}/version", "1")
    join_parts(iter((("begin", tmp_path / "begin.pt2"), ("add", tmp_path / "add.pt2"))), tmp_path / "package.pt2")
    with zipfile.ZipFile(tmp_path / "package.pt2") as package:
        assert {name: package.read(name) for name in package.namelist()} == {"begin.so": b"begin", "add.so": b"add"}
