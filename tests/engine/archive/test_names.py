"""One name for each result, whatever the inputs are called and however the file system compares names."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.archive.config import ArchiveConfig
from engine.archive.names import Fold, assign_names, folding, folding_of
from engine.errors import SetupError
from engine.listing import Input

IGNORES_CASE = folding(ignores_case=True, normalises=False)
NORMALISES = folding(ignores_case=False, normalises=True)


def names(
    *keys: str,
    format: str = "keep",
    owned: dict[str, str] | None = None,
    reserved: dict[str, str] | None = None,
    fold: Fold = str,
    config: ArchiveConfig | None = None,
) -> list[str]:
    inputs = [Input(key=key, identity="") for key in keys]
    results = assign_names(inputs, format, config or ArchiveConfig(), owned or {}, reserved or {}, fold)
    return [result.output for result in results]


def test_a_file_whose_own_name_it_is_goes_first() -> None:
    keys = [f"IMG_1.{kind}" for kind in ("bmp", "gif", "jpg", "png")]
    assert names(*keys, format="jpeg") == ["IMG_1.bmp.jpg", "IMG_1.gif.jpg", "IMG_1.jpg", "IMG_1.png.jpg"]


def test_without_such_a_file_the_first_gets_the_name() -> None:
    assert names("a.bmp", "a.gif") == ["a.png", "a.gif.png"]


def test_a_second_name_never_takes_that_of_another_file() -> None:
    assert names("a.bmp", "a.bmp.png", "a.png") == ["a.bmp-2.png", "a.bmp.png", "a.png"]


def test_an_owner_keeps_its_name_and_its_second_name() -> None:
    assert names("a.bmp", "a.png", owned={"a.bmp": "a.png"}) == ["a.png", "a.png.png"]
    assert names("a.gif", owned={"a.gif": "a.gif.png"}) == ["a.gif.png"]
    assert names("a.gif", owned={"a.gif": "a.gif.jpg"}) == ["a.png"], "another format has another name"


def test_a_reserved_name_is_not_given() -> None:
    assert names("a.png", reserved={"a.png": "a.bmp"}) == ["a.png.png"]


def test_names_that_are_equal_to_the_file_system_are_told_apart() -> None:
    assert names("A.jpg", "a.jpg") == ["A.jpg", "a.jpg"]
    assert names("A.jpg", "a.jpg", fold=IGNORES_CASE) == ["A.jpg", "a.jpg.jpg"]
    composed, decomposed = "\u00e9.jpg", "e\u0301.jpg"
    assert names(composed, decomposed) == [composed, decomposed]
    assert names(composed, decomposed, fold=NORMALISES) == [composed, f"{decomposed}.jpg"]


def test_a_template_makes_second_names() -> None:
    config = ArchiveConfig(name="{stem} from {suffix}{ext}", suffix="_w")
    assert names("d/a.bmp", "d/a.gif", config=config) == ["d/a_w.png", "d/a_w from gif.png"]


@pytest.mark.parametrize("template", ["{stem", "{kind}{ext}", "{0}{ext}", "{stem}/{ext}", "{stem}"])
def test_a_template_that_names_no_file_is_refused(template: str) -> None:
    with pytest.raises(SetupError):
        ArchiveConfig(name=template)


def test_a_suffix_that_leaves_the_folder_is_refused() -> None:
    with pytest.raises(SetupError, match="slash"):
        ArchiveConfig(suffix="/../x")


KEYS = st.lists(
    st.builds("{}{}{}".format, st.sampled_from(["", "d/"]), st.sampled_from(["a", "A", "a.bmp", "a.png"]),
              st.sampled_from(["", ".bmp", ".gif", ".jpg", ".JPG", ".png", ".png-2.png"])),
    unique=True, max_size=12,
)  # fmt: skip


@given(keys=KEYS, format=st.sampled_from(["keep", "jpeg", "png"]), fold=st.sampled_from([str, IGNORES_CASE]))
def test_no_two_results_share_a_name_and_the_next_run_gives_the_same_names(
    keys: list[str], format: str, fold: Fold
) -> None:
    first = names(*keys, format=format, fold=fold)
    assert len({fold(output) for output in first}) == len(keys)
    assert all(key.rpartition("/")[0] == output.rpartition("/")[0] for key, output in zip(keys, first, strict=True))
    owned = dict(zip(keys, first, strict=True))
    shuffled = random.Random(1).sample(keys, len(keys))
    assert names(*shuffled, format=format, fold=fold, owned=owned) == [owned[key] for key in shuffled]


def test_folding_follows_the_file_system(tmp_path: Path) -> None:
    fold = folding_of(tmp_path)
    (tmp_path / "a").touch()
    assert (fold("A") == fold("a")) == (tmp_path / "A").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert folding_of(tmp_path / "nowhere") is str
