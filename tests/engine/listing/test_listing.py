"""How a source is recognised: a folder, a photo, a list, a tar or a zip."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from engine.errors import SetupError
from engine.listing import list_inputs
from tests.engine.listing.files import DATA, fill, keys


def test_one_file_is_one_input_whatever_its_name(tmp_path: Path) -> None:
    fill(tmp_path, "a.jpg", "no-suffix")
    assert keys(tmp_path / "a.jpg") == ["a.jpg"]
    assert keys(tmp_path / "no-suffix") == ["no-suffix"]


def test_a_photo_with_a_zip_behind_its_end_is_a_photo(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("b.jpg", DATA)
    (tmp_path / "a.jpg").write_bytes(DATA + archive.getvalue())
    assert keys(tmp_path / "a.jpg") == ["a.jpg"]


def test_a_missing_or_special_source_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not exist"):
        list_inputs(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SetupError, match="neither a folder nor a file"):
        list_inputs(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SetupError, match="symbolic links"):
        list_inputs(tmp_path / "loop")
    for bad in ("gone", "pipe", "loop"):
        with pytest.raises(SetupError):
            list_inputs(tmp_path / bad)


@pytest.mark.parametrize("name", ["photos.7z", "photos.tar", "photos.zip", "photos.jpg.gz"])
def test_an_archive_that_cannot_be_read_is_not_taken_for_a_photo(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b" + b"no archive" * 10)
    with pytest.raises(SetupError, match="is not a tar or a zip that can be read"):
        list_inputs(tmp_path / name)
