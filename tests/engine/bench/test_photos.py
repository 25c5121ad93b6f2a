from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import simplejpeg

import engine.bench.photos as photos
from engine.bench.photos import SAMPLES, Scenes, find_scenes, link_photos
from engine.errors import SetupError


def test_every_photo_has_the_size_asked_for_and_differs_from_the_others() -> None:
    scenes = find_scenes()

    jpegs = [scenes.jpeg(number, 120, 90) for number in range(2 * len(scenes.pixels_HWC))]

    assert {simplejpeg.decode_jpeg(jpeg).shape for jpeg in jpegs} == {(90, 120, 3)}
    assert len(set(jpegs)) == len(jpegs)


def test_a_photo_is_the_same_in_every_run() -> None:
    assert find_scenes().jpeg(3, 64, 64) == find_scenes().jpeg(3, 64, 64)


@pytest.mark.parametrize("made_up", [False, True])
def test_photos_compress_as_those_of_a_camera_do(made_up: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if made_up:
        monkeypatch.setattr(photos, "SAMPLES", Path("no-such-folder"))
    scenes = find_scenes()
    assert scenes.origin == ("made up" if made_up else "samples")

    bytes_per_pixel = [len(scenes.jpeg(number, 1024, 768)) / (1024 * 768) for number in range(4)]

    assert 0.15 < np.mean(bytes_per_pixel) < 0.6


def test_scenes_are_cut_and_not_distorted(tmp_path: Path) -> None:
    """A disc stays round where a wide photo becomes a square one."""
    y, x = np.mgrid[:200, :400]
    disc = np.where((x - 200) ** 2 + (y - 100) ** 2 < 60**2, 255, 0).astype(np.uint8)
    (tmp_path / "disc.jpg").write_bytes(simplejpeg.encode_jpeg(np.dstack([disc] * 3).copy(), 95))

    square = simplejpeg.decode_jpeg(find_scenes(tmp_path).jpeg(0, 100, 100))[..., 0] > 128

    assert abs(int(square.any(0).sum()) - int(square.any(1).sum())) <= 2
    assert 56 <= square.any(0).sum() <= 64


def test_a_folder_without_photos_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no photo")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")

    with pytest.raises(SetupError, match=r"holds no JPEG that can be decoded; .*--photos\.$"):
        find_scenes(tmp_path)


def test_links_fill_folders_of_a_thousand(tmp_path: Path) -> None:
    photo = SAMPLES / "cliff.jpg"
    (tmp_path / "one.jpg").write_bytes(photo.read_bytes())

    link_photos([tmp_path / "one.jpg"], tmp_path / "in", 1001)

    assert len(list((tmp_path / "in/0000").iterdir())) == 1000
    assert [path.name for path in (tmp_path / "in/0001").iterdir()] == ["001000.jpg"]


def test_photos_are_written_under_numbered_names(tmp_path: Path) -> None:
    paths = Scenes("test", find_scenes().pixels_HWC).write(tmp_path / "out", 2, 32, 24)

    assert [path.name for path in paths] == ["000000.jpg", "000001.jpg"]
    assert all(path.stat().st_size > 100 for path in paths)
