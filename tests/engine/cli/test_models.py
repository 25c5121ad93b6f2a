"""`solstice models` lists the named models and their cards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.cli.models import describe, models, network_of
from engine.model.card import Architecture, Card, list_models


def test_every_named_model_is_listed(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(model_file, tmp_path / "mine.safetensors")
    monkeypatch.setenv("SOLSTICE_MODELS", str(tmp_path))
    result = CliRunner().invoke(models)
    assert result.exit_code == 0
    assert all(name in result.output for name in list_models())
    verbose = CliRunner().invoke(models, ["--verbose"]).output
    assert "tiny: summer → winter" in verbose
    assert "ResNet-1, ngf 4" in verbose


def test_a_card_is_described_in_lines_of_at_most_100_columns() -> None:
    card = Card(name="n", data="Photos " * 30, licence="MIT", training={"epochs": 3}, scores={"kid": 0.1})
    lines = describe(card).splitlines()
    assert lines[0] == "n: A → B"
    assert all(len(line) <= 100 for line in lines)
    assert "  training  epochs: 3" in lines
    assert "  scores    kid: 0.1" in lines
    assert "notes" not in describe(card)


def test_a_network_is_described_in_a_few_words() -> None:
    arch = Architecture(affine=True, track_running_stats=True, upsample="resize", learn_residual=True)
    assert network_of(Card(name="n", architecture=arch)) == (
        "ResNet-9, ngf 64, affine, running statistics, resize up-sampling, learned residual"
    )
    arch = Architecture(network="unet", levels=7, norm="batch", bias=False, channels_in=1)
    assert network_of(Card(name="n", architecture=arch)) == "U-Net-7, ngf 64, batch norm, 1 to 3 channels"
    arch = Architecture(norm="none", padding="zero", downsample="blur", upsample="blur")
    assert network_of(Card(name="n", architecture=arch)) == (
        "ResNet-9, ngf 64, no norm, zero padding, blur down-sampling, blur up-sampling"
    )
