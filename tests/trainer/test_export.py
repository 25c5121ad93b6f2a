from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.errors import SetupError
from engine.model.card import read_card
from engine.model.weights import load_generator
from trainer import loop
from trainer.checkpoints import load_checkpoint
from trainer.config import RunConfig
from trainer.export import Labels, export, generator_of, load_pair, write_scores


def test_export_writes_two_files_with_cards_that_compute_what_was_trained(run: Path, tmp_path: Path) -> None:
    write_scores(run, {"scale": {"classifier_accuracy": 0.9}, "a_to_b": {"gap_closed": 0.5}})
    labels = Labels(domain_a="warm", domain_b="cold", data="gradients", licence="CC0", notes="tiny")

    there, back = export(run, tmp_path / "models", labels, torch.float32)

    assert (there.name, back.name) == ("warm2cold.safetensors", "cold2warm.safetensors")
    card = read_card(there)
    assert (card.name, card.source_domain, card.target_domain) == ("warm2cold", "warm", "cold")
    assert (card.data, card.licence, card.notes, card.training_size) == ("gradients", "CC0", "tiny", 32)
    assert card.scores == {"scale": {"classifier_accuracy": 0.9}, "gap_closed": 0.5}
    assert (card.training["steps"], card.training["pairs_seen"], card.training["epochs"]) == (8, 40, 2.0)
    assert read_card(back).scores == {}
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    trained = generator_of(load_checkpoint(run), "b_to_a")
    assert torch.equal(load_generator(back).module(image), trained(image))


def test_an_average_is_exported_if_one_is_kept(config: RunConfig, tmp_path: Path) -> None:
    config = replace(config, schedule=replace(config.schedule, average=0.5))
    loop.fit(config, tmp_path / "run")
    checkpoint = load_checkpoint(tmp_path / "run")

    there, _ = export(tmp_path / "run", tmp_path / "models", Labels(), torch.float32)

    exported = load_generator(there).module.state_dict()
    assert all(torch.equal(value, checkpoint.averages["a_to_b"][name]) for name, value in exported.items())
    assert any(not torch.equal(value, checkpoint.networks["a_to_b"][name]) for name, value in exported.items())


def test_a_run_is_scored_in_the_half_precision_it_is_served_in(run: Path, tmp_path: Path) -> None:
    there, back = load_pair(run, tmp_path)
    assert back is not None
    weight = next(iter(there.module.parameters()))
    assert torch.equal(weight, weight.half().float())


def test_a_grid_of_test_photos_translations_and_returns_stands_beside_each_model(run: Path, tmp_path: Path) -> None:
    there, back = export(run, tmp_path / "models", Labels())
    for path in (there, back):
        assert read_card(path).training["grid"] == ["00.png", "01.png", "02.png", "03.png"]
        with Image.open(path.with_suffix(".jpg")) as grid:
            assert grid.width > 3 * 256
            assert grid.height > 4 * 256


def test_a_run_whose_test_photos_are_gone_is_exported_without_a_grid(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trainer.photos.is_image_name", lambda _: False)
    there, _ = export(run, tmp_path / "models", Labels())
    assert there.exists()
    assert not there.with_suffix(".jpg").exists()
    assert "without grids" in caplog.text


@pytest.mark.parametrize(("a", "b"), [("", "b"), ("a", "a"), ("../a", "b"), ("a", "b/c")])
def test_domains_that_name_no_two_files_are_refused(a: str, b: str) -> None:
    with pytest.raises(SetupError, match="must differ and have no slash"):
        Labels(domain_a=a, domain_b=b)


def test_a_folder_for_models_that_cannot_be_created_is_an_error(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError, match=r'Cannot write to ".*file/models": Not a directory'):
        export(run, tmp_path / "file/models", Labels())
