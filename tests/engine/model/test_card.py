"""Cards are read and models are found by name, without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import SetupError
from engine.model.card import Architecture, Card, find_model, list_models
from engine.model.weights import load_generator
from tests.engine.model.variants import VARIANTS


def test_reading_a_card_does_not_import_torch(model_file: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from engine.model.card import read_card;"
        "print(read_card(Path(sys.argv[1])).name, 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script, model_file], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == ["tiny", "False"]


def test_a_card_with_fields_it_should_not_have_is_refused() -> None:
    for change in ('"name": "x", "colour": 1', '"nome": "x"'):
        text = Card(name="x").to_json().replace('"name": "x"', change)
        with pytest.raises(ValueError, match="does not fit"):
            Card.from_json(text)


def test_a_card_of_the_first_version_reads_and_writes_unchanged() -> None:
    text = (
        '{"architecture": {"affine": false, "blocks": 6, "learn_residual": true, "ngf": 32, "track_running_stats": '
        'false, "upsample": "resize"}, "data": "", "format": 1, "licence": "", "name": "x", "notes": "", '
        '"pixel_range": [-1.0, 1.0], "scores": {}, "source_domain": "A", "target_domain": "B", "training": {}, '
        '"training_size": null}'
    )
    card = Card.from_json(text)
    assert card.architecture == Architecture(blocks=6, ngf=32, upsample="resize", learn_residual=True)
    assert card.to_json() == text


@pytest.mark.parametrize("arch", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_architecture_survives_in_a_card(arch: Architecture) -> None:
    assert Card.from_json(Card(name="x", architecture=arch).to_json()).architecture == arch


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"network": "vit"}, "network must be one of"),
        ({"network": ["unet"]}, "network must be one of"),
        ({"norm": "group"}, "norm must be one of"),
        ({"padding": None}, "padding must be one of"),
        ({"downsample": "pool"}, "downsample must be one of"),
        ({"channels_in": 2}, "channels_in must be one of"),
        ({"channels_out": True}, "channels_out must be one of"),
        ({"channels_out": 3.0}, "channels_out must be one of"),
        ({"bias": 1}, "bias must be true or false"),
        ({"network": "unet", "levels": 4}, "levels must be a whole number from 5 to 10"),
        ({"network": "unet", "levels": 8.0}, "levels must be a whole number"),
        ({"levels": 7}, "levels does not apply to the network resnet"),
        ({"network": "unet", "blocks": 6}, "blocks does not apply to the network unet"),
        ({"network": "unet", "padding": "zero"}, "padding does not apply"),
        ({"norm": "batch", "affine": True}, "apply to the norm instance, not to batch"),
        ({"norm": "none", "track_running_stats": True}, "apply to the norm instance, not to none"),
        ({"learn_residual": True, "channels_in": 1}, "as many channels out as in"),
    ],
    ids=str,
)
def test_an_architecture_that_is_no_network_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Architecture(**fields)


@pytest.fixture
def own(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    shutil.copy(model_file, folder / "mine.safetensors")
    monkeypatch.setenv("SOLSTICE_MODELS", str(folder))
    return folder


def test_a_users_folder_adds_names(own: Path) -> None:
    assert list_models()["mine"] == own / "mine.safetensors"
    assert find_model("mine") == own / "mine.safetensors"
    assert load_generator("mine").card.name == "tiny"


def test_a_users_model_hides_a_shipped_one_of_the_same_name(own: Path) -> None:
    for name in set(list_models()) - {"mine"}:
        shutil.copy(own / "mine.safetensors", own / f"{name}.safetensors")
        assert find_model(name) == own / f"{name}.safetensors"


def test_a_file_is_found_by_its_path(model_file: Path) -> None:
    assert find_model(str(model_file)) == model_file


@pytest.mark.parametrize("name", ["nothing", "folder/nothing", "nothing.safetensors"])
def test_what_is_not_there_gets_one_sentence_that_says_what_to_do(own: Path, name: str) -> None:
    with pytest.raises(SetupError, match=r"There is no model.*(mine|solstice models)"):
        find_model(name)
