"""A model file from a stranger: whatever its card and its tensors claim, one sentence, quickly and in little memory."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from engine.errors import SetupError
from engine.model.card import CARD_KEY, Architecture, Card, read_card
from engine.model.network import ResnetGenerator
from engine.model.weights import load_file
from tests import ROOT

GOOD = {"format": 1, "name": "m", "pixel_range": [-1, 1], "architecture": {"blocks": 1, "ngf": 2}}
TENSORS = ResnetGenerator(Architecture(blocks=1, ngf=2)).state_dict()


def written(path: Path, card: str, tensors: dict[str, torch.Tensor] | None = None) -> Path:
    path.write_bytes(save(TENSORS if tensors is None else tensors, metadata={CARD_KEY: card}))
    return path


def refused(path: Path, said: str) -> None:
    for read in (read_card, load_file):
        with pytest.raises(SetupError, match=said) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize(
    "architecture",
    [
        {"blocks": 1_000_000},
        {"blocks": 10**4000},
        {"blocks": 1.5},
        {"blocks": True},
        {"blocks": -1},
        {"blocks": "9"},
        {"blocks": None},
        {"blocks": [9]},
        {"ngf": True},
        {"ngf": 1_000_000},
        {"ngf": 2.0},
        {"ngf": {}},
        {"affine": 1},
        {"affine": "yes"},
        {"track_running_stats": None},
        {"learn_residual": 0},
        {"upsample": "bilinear"},
        {"upsample": ["resize"]},
        {"upsample": {}},
        {"colour": "red"},
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_architecture_out_of_bounds_is_refused_before_a_network_is_built(
    architecture: dict[str, Any], tmp_path: Path
) -> None:
    card = json.dumps({**GOOD, "architecture": {"blocks": 1, "ngf": 2, **architecture}})
    refused(written(tmp_path / "m.safetensors", card), "m.safetensors: ")


@pytest.mark.parametrize(
    "card",
    [
        "[" * 100_000,
        '{"format": 1, "training": ' + '{"a": ' * 5_000 + "1" + "}" * 5_001,
        json.dumps({**GOOD, "training": json.loads('{"a": ' * 100 + "1" + "}" * 100)}),
        json.dumps({**GOOD, "notes": "x" * 2_000_000}),
        json.dumps({**GOOD, "name": 5}),
        json.dumps({**GOOD, "name": ["m"]}),
        json.dumps({**GOOD, "licence": {}}),
        json.dumps({**GOOD, "training_size": True}),
        json.dumps({**GOOD, "training_size": 1e400}),
        json.dumps({**GOOD, "training_size": "256"}),
        json.dumps({**GOOD, "pixel_range": [0, float("nan")]}),
        json.dumps({**GOOD, "pixel_range": 5}),
        json.dumps({**GOOD, "pixel_range": [0, "1"]}),
        json.dumps({**GOOD, "pixel_range": [0, 1, 2]}),
        json.dumps({**GOOD, "architecture": [1, 2]}),
        json.dumps({**GOOD, "scores": []}),
        json.dumps({**GOOD, "format": True})[:-1],
        '{"format": 1' + "0" * 5_000 + "}",
        "null",
        "",
    ],
    ids=lambda text: text[:30] + "..." + text[-20:] if len(text) > 50 else text or "empty",
)
def test_a_card_that_is_no_card_is_one_sentence(card: str, tmp_path: Path) -> None:
    refused(written(tmp_path / "m.safetensors", card), "m.safetensors: ")


def test_a_good_card_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "m.safetensors", json.dumps(GOOD))
    assert load_file(path).card.architecture == Architecture(blocks=1, ngf=2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model.1.bias": torch.zeros(2, dtype=torch.int64)}, "key model.1.bias has type I64"),
        ({"model.1.bias": torch.zeros(2, dtype=torch.bool)}, "key model.1.bias has type BOOL"),
        ({"model.1.bias": torch.tensor([1.0, float("nan")])}, "key model.1.bias has values"),
        ({"model.1.bias": torch.tensor([1.0, float("inf")])}, "key model.1.bias has values"),
        ({"model.1.bias": torch.zeros(3)}, r"key model.1.bias has shape \[3\], expected \[2\]"),
        ({"model.1.bias": torch.zeros(0)}, r"key model.1.bias has shape \[0\]"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(change: dict[str, torch.Tensor], said: str, tmp_path: Path) -> None:
    path = written(tmp_path / "m.safetensors", json.dumps(GOOD), {**TENSORS, **change})
    with pytest.raises(SetupError, match=said):
        load_file(path)


def test_a_large_network_that_the_file_does_not_hold_takes_no_memory(tmp_path: Path) -> None:
    """64 blocks of 2,048 channels would take 19 GB."""
    card = json.dumps({**GOOD, "architecture": {"blocks": 64, "ngf": 512}})
    path = written(tmp_path / "m.safetensors", card)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SetupError, match="has shape"):
        load_file(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_a_header_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    header = {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    data = json.dumps(header).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(data)) + data)
    refused(tmp_path / "m.safetensors", "not a readable .safetensors file")
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + data)
    refused(tmp_path / "m.safetensors", "not a readable .safetensors file")


def test_a_pipe_with_a_models_name_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.safetensors")
    refused(tmp_path / "m.safetensors", "not a regular file")


def test_a_hostile_file_among_the_named_models_is_a_sentence_of_the_command(tmp_path: Path) -> None:
    card = json.dumps({**GOOD, "architecture": {"blocks": 1_000_000}})
    written(tmp_path / "m.safetensors", card)
    command = [sys.executable, "-m", "engine", "models"]
    environment = {**os.environ, "SOLSTICE_MODELS": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"solstice: {tmp_path}/m.safetensors: blocks must be a whole number from 1 to 64")
    assert done.stderr.count("\n") == 1


def test_what_a_card_saves_it_reads(tmp_path: Path) -> None:
    card = Card(name="m", training={"a": {"b": [1, {"c": None}]}}, scores={"kid": 0.5}, training_size=256)
    assert Card.from_json(card.to_json()) == card
