"""Sidecars go along with their photos, under the names of the results."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from engine.archive.config import ArchiveConfig
from engine.archive.convert import convert
from tests.engine.archive.test_convert import CONFIG, files
from tests.images import photo

SIDECARS = {
    "a.jpg.xmp": "a.jpg.xmp",
    "a.xmp": "a.xmp",
    "b.gif.json": "b.png.json",
    "b.gif.supplemental-metadata.json": "b.png.supplemental-metadata.json",
    "deep/c.json": "deep/c.json",
}


@pytest.fixture
def src(tmp_path: Path) -> Path:
    src = tmp_path / "src"
    (src / "deep").mkdir(parents=True)
    (src / "a.jpg").write_bytes(photo())
    (src / "b.gif").write_bytes(photo(format="GIF"))
    (src / "deep/c.jpg").write_bytes(photo())
    (src / "broken.jpg").write_bytes(b"words")
    for name in (*SIDECARS, "broken.jpg.xmp", "album.json"):
        (src / name).write_text(name)
    return src


def test_sidecars_are_copied_when_asked_for(src: Path, tmp_path: Path, model_file: Path) -> None:
    summary = convert(src, tmp_path / "dst", model_file, CONFIG, archive=ArchiveConfig(sidecars=True))
    made = files(tmp_path / "dst")
    assert {name: made[name].decode() for name in SIDECARS.values()} == {new: old for old, new in SIDECARS.items()}
    assert set(made) == {"a.jpg", "b.png", "deep/c.jpg", *SIDECARS.values()}
    assert summary.sidecars == len(SIDECARS)
    assert summary.left_out == {".xmp of no photo": 1, ".json of no photo": 1}


def test_a_second_run_copies_only_what_changed(src: Path, tmp_path: Path, model_file: Path) -> None:
    archive = ArchiveConfig(sidecars=True)
    convert(src, tmp_path / "dst", model_file, CONFIG, archive=archive)
    assert convert(src, tmp_path / "dst", model_file, CONFIG, archive=archive).sidecars == 0
    (src / "a.xmp").write_text("edited")
    assert convert(src, tmp_path / "dst", model_file, CONFIG, archive=archive).sidecars == 1
    assert (tmp_path / "dst/a.xmp").read_text() == "edited"


def test_without_being_asked_for_they_are_counted(src: Path, tmp_path: Path, model_file: Path) -> None:
    summary = convert(src, tmp_path / "dst", model_file, CONFIG)
    assert summary.left_out == {".xmp": 3, ".json": 4}
    assert not list((tmp_path / "dst").glob("*.xmp"))


def test_sidecars_go_into_an_object_store_too(src: Path, tmp_path: Path, model_file: Path) -> None:
    url = f"memory://{tmp_path.name}/out"
    assert convert(src, url, model_file, CONFIG, archive=ArchiveConfig(sidecars=True)).sidecars == len(SIDECARS)
    stored = fsspec.filesystem("memory")
    assert stored.cat_file(f"/{tmp_path.name}/out/b.png.json") == b"b.gif.json"
    assert convert(src, url, model_file, CONFIG, archive=ArchiveConfig(sidecars=True)).sidecars == 0
