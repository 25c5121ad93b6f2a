"""Pages and frames as results of their own."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from engine.archive.config import ArchiveConfig
from engine.archive.convert import convert
from engine.errors import SetupError
from engine.model.weights import Generator
from tests.engine.archive.test_convert import CONFIG, counts, files
from tests.images import encoded, photo, picture, pixels

ALL = ArchiveConfig(pages="all")


@pytest.fixture
def src(tmp_path: Path) -> Path:
    src = tmp_path / "src"
    src.mkdir()
    pages = [picture(seed=i) for i in range(3)]
    (src / "scan.tif").write_bytes(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    (src / "move.gif").write_bytes(encoded(pages[0], "GIF", save_all=True, append_images=pages[1:]))
    (src / "a.jpg").write_bytes(photo())
    return src


def test_every_page_is_a_result_when_asked_for(src: Path, tmp_path: Path, generator: Generator) -> None:
    dst = tmp_path / "dst"
    summary = convert(src, dst, generator, CONFIG, archive=ALL, translate=lambda _: lambda x: x)
    assert counts(summary) == (7, 0, 0)
    assert summary.remarks == []
    pages = [f"scan{page}.tif" for page in ("", ".page-2", ".page-3")]
    frames = [f"move{page}.png" for page in ("", ".page-2", ".page-3")]
    assert set(files(dst)) == {"a.jpg", *pages, *frames}
    for number, name in enumerate(pages):
        assert np.array_equal(pixels((dst / name).read_bytes()), np.asarray(picture(seed=number)).astype(np.int16))
    again = convert(src, dst, generator, CONFIG, archive=ALL, translate=lambda _: lambda x: x)
    assert counts(again) == (0, 7, 0)


def test_pages_that_are_left_out_are_a_remark(src: Path, tmp_path: Path, model_file: Path) -> None:
    summary = convert(src, tmp_path / "dst", model_file, CONFIG)
    assert {remark["path"]: remark["remark"] for remark in summary.remarks} == {
        "scan.tif": "first of 3 frames",
        "move.gif": "first of 3 frames",
    }


def test_pages_of_members_of_a_tar(src: Path, tmp_path: Path, model_file: Path) -> None:
    convert(src, tmp_path / "dst", model_file, CONFIG, archive=ALL)
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as tar:
        tar.add(src, ".")
    convert(tmp_path / "t.tar.gz", tmp_path / "from tar", model_file, CONFIG, archive=ALL)
    assert files(tmp_path / "from tar") == files(tmp_path / "dst")


def test_all_pages_do_not_go_into_one_file(src: Path, tmp_path: Path, model_file: Path) -> None:
    with pytest.raises(SetupError, match="has 3 pages; name a folder"):
        convert(src / "scan.tif", tmp_path / "out.tif", model_file, CONFIG, archive=ALL)
