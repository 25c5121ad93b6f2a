"""Globs over the paths of an archive."""

from __future__ import annotations

import pytest

from engine.listing import Selection


def taken(selection: Selection, key: str) -> bool:
    return selection.whole_path_kind(key) is None


@pytest.mark.parametrize(
    ("glob", "matching", "other"),
    [
        ("*.jpg", ["a.jpg", "b/c/a.JPG"], ["a.png", "a.jpg.png"]),
        ("2019", ["2019/a.jpg", "x/2019/b/c.jpg"], ["20190/a.jpg", "a-2019.jpg"]),
        ("2019/", ["2019/a.jpg"], ["2018/a.jpg"]),
        ("2019/raw", ["2019/raw/a.jpg"], ["x/2019/raw/a.jpg", "2019/a.jpg"]),
        ("2019/*.jpg", ["2019/a.jpg"], ["2019/b/a.jpg"]),
        ("2019/**", ["2019/a.jpg", "2019/b/c/a.jpg"], ["2018/a.jpg"]),
        ("**/raw/*.jpg", ["raw/a.jpg", "x/y/raw/b.jpg"], ["raw/x/b.jpg"]),
        ("IMG_[12]?.jpg", ["IMG_10.jpg", "x/IMG_2a.jpg"], ["IMG_30.jpg"]),
        ("IMG_[!12].jpg", ["IMG_3.jpg"], ["IMG_1.jpg"]),
        ("./a(1)+.jpg", ["a(1)+.jpg"], ["a1.jpg"]),
        ("[x", ["[x/a.jpg"], ["x/a.jpg"]),
    ],
)
def test_a_glob_takes_or_leaves_out_what_it_matches(glob: str, matching: list[str], other: list[str]) -> None:
    assert all(taken(Selection(include=(glob,)), key) for key in matching)
    assert not any(taken(Selection(include=(glob,)), key) for key in other)
    assert not any(taken(Selection(exclude=(glob,)), key) for key in matching)
    assert all(taken(Selection(exclude=(glob,)), key) for key in other)


def test_exclude_wins_over_include() -> None:
    selection = Selection(include=("*.jpg", "*.png"), exclude=("b*",))
    assert [key for key in ("a.jpg", "b.jpg", "a.png", "a.tif", "bb/a.jpg") if taken(selection, key)] == [
        "a.jpg",
        "a.png",
    ]
    assert selection.whole_path_kind("b.jpg") == ("excluded", "b.jpg")


def test_hidden_files_are_left_out_unless_a_glob_names_them() -> None:
    assert Selection().whole_path_kind(".cache/a.jpg") == ("hidden", ".cache")
    assert not taken(Selection(include=("*.jpg",)), ".a.jpg")
    assert taken(Selection(include=(".cache/*.jpg",)), ".cache/a.jpg")
    assert taken(Selection(include=("*.jpg", ".*")), "x/.a.jpg")
    assert not taken(Selection(include=(".*",)), ".solstice/partial/a.jpg"), "never the state of Solstice itself"
