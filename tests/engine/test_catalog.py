"""Models by name and by file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.catalog import find_model, list_models, load_generator
from engine.errors import SetupError


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


def test_every_shipped_model_loads_and_says_what_it_is() -> None:
    for name, path in list_models().items():
        card = load_generator(path).card
        assert card.name == name
        assert card.licence
        assert card.data
