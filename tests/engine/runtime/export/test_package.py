"""Export a compiled package with its card, and run it with plain PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.export.pt2_archive._package import load_pt2

from engine.config import GenerateConfig
from engine.errors import BackendUnavailable
from engine.model.card import Card
from engine.model.weights import Generator
from engine.runtime.backends.inductor import InductorBackend
from engine.runtime.export.package import CARD_FILE, export_package


@pytest.mark.needs_compiler
def test_plain_pytorch_runs_an_exported_package(
    compiled: InductorBackend, own_cache: Path, generator: Generator, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    out = tmp_path / "out/net.pt2"
    config = GenerateConfig(device="cpu", cache=own_cache)
    assert export_package(generator, out, config).passed
    package = load_pt2(str(out))
    assert Card.from_json(package.extra_files[CARD_FILE]) == generator.card
    pixels = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8)
    assert torch.equal(torch._inductor.aoti_load_package(str(out))(pixels), compiled(pixels))
    assert list(out.parent.iterdir()) == [out]


def test_without_a_compiler_nothing_is_written(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    config = GenerateConfig(device="cpu", cache=tmp_path / "cache")
    with pytest.raises(BackendUnavailable, match="needs a C"):
        export_package(generator, tmp_path / "net.pt2", config)
    assert not (tmp_path / "net.pt2").exists()
