"""Cards are read and models are found by name, without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import SetupError
from engine.model.card import Card, find_model, list_models
from engine.model.weights import load_generator


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
