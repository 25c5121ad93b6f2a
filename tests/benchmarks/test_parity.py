from __future__ import annotations

from pathlib import Path

from benchmarks.parity import _checked, _in_tree, table
from engine.model.card import Architecture, Card
from engine.model.network import ResnetGenerator
from engine.model.weights import save_generator
from tests import ROOT


def test_each_tree_checks_the_models_with_its_own_code(tmp_path: Path) -> None:
    arch = Architecture(ngf=4, blocks=1)
    save_generator(tmp_path / "tiny.safetensors", ResnetGenerator(arch), Card(name="tiny", architecture=arch))
    (here,) = _checked([str(tmp_path / "tiny.safetensors")], compiled=False)
    assert set(here) == {"eager bf16", "eager mixed"}
    rows = list(_in_tree("now", ROOT, {"tiny": tmp_path / "tiny.safetensors"}, compiled=False))
    assert {row["backend"]: row["result"] for row in rows} == here
    lines = table(rows).splitlines()
    assert lines[0] == "| weights | tree | eager bf16 | eager mixed |"
    assert lines[2] == f"| tiny | now | {here['eager bf16']} | {here['eager mixed']} |"
