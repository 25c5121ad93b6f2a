"""`solstice models` lists models; `solstice import` converts checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from engine.cli.models import describe, import_model, models, network_of
from engine.errors import SetupError
from engine.model.card import Architecture, Card, list_models
from engine.model.network import ResnetGenerator
from engine.model.weights import load_generator


def test_every_named_model_is_listed(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(model_file, tmp_path / "mine.safetensors")
    monkeypatch.setenv("SOLSTICE_MODELS", str(tmp_path))
    result = CliRunner().invoke(models)
    assert result.exit_code == 0
    assert all(name in result.output for name in list_models())
    verbose = CliRunner().invoke(models, ["--verbose"]).output
    assert "tiny: summer → winter" in verbose
    assert "ResNet-1, ngf 4" in verbose


def test_a_checkpoint_becomes_a_model_with_the_same_weights(tmp_path: Path) -> None:
    module = ResnetGenerator(Architecture(blocks=6, ngf=2, affine=True))
    torch.save(module.state_dict(), tmp_path / "latest_net_G_A.pth")
    arguments = [str(tmp_path / "latest_net_G_A.pth"), str(tmp_path / "h2z.safetensors")]
    arguments += ["--source-domain", "horse", "--target-domain", "zebra", "--training-size", "256", "--licence", "MIT"]
    result = CliRunner().invoke(import_model, arguments)
    assert result.exit_code == 0, result.output
    assert "ResNet-6, ngf 2, affine" in result.output
    generator = load_generator(tmp_path / "h2z.safetensors")
    card = generator.card
    assert (card.name, card.source_domain, card.target_domain, card.training_size) == ("h2z", "horse", "zebra", 256)
    assert card.licence == "MIT"
    assert card.notes == "Imported from latest_net_G_A.pth."
    loaded = generator.module.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in module.state_dict().items())


def test_learn_residual_is_recorded_in_the_architecture(tmp_path: Path) -> None:
    torch.save(ResnetGenerator(Architecture(blocks=1, ngf=2)).state_dict(), tmp_path / "net.pth")
    arguments = [str(tmp_path / "net.pth"), str(tmp_path / "net.safetensors"), "--learn-residual"]
    assert CliRunner().invoke(import_model, arguments).exit_code == 0
    assert load_generator(tmp_path / "net.safetensors").module.arch.learn_residual


def test_a_model_file_without_its_suffix_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(import_model, [str(tmp_path / "a.pth"), str(tmp_path / "model.pth")])
    assert isinstance(result.exception, SetupError)
    assert "must end in .safetensors" in str(result.exception)


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
