from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from engine.errors import SetupError, StopRun
from tests.images import encoded, photo, picture
from trainer.config import DataConfig
from trainer.data import MemoryPhotos, StreamedPhotos, load_photos
from trainer.sampling import Cut

CPU = torch.device("cpu")


def data_config(folder: Path, **changes: object) -> DataConfig:
    return replace(DataConfig(train_a=folder, train_b=folder, load=40, crop=32), **changes)  # type: ignore[arg-type]


def test_unusual_photos_are_read_and_unusable_ones_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, mode in (("gray.jpg", "L"), ("print.jpg", "CMYK"), ("colour.jpg", "RGB")):
        (tmp_path / name).write_bytes(encoded(picture().convert(mode)))
    (tmp_path / "clear.png").write_bytes(encoded(picture().convert("RGBA"), "PNG"))
    (tmp_path / "torn.jpg").write_bytes(photo()[:200])
    (tmp_path / "words.jpg").write_bytes(b"no image")
    (tmp_path / "small.png").write_bytes(encoded(picture(20, 60), "PNG"))
    (tmp_path / "notes.txt").write_text("not looked at")
    picture().save(tmp_path / "frames.gif")
    os.mkfifo(tmp_path / "pipe.jpg")  # would be waited for when it is opened
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")

    with caplog.at_level(logging.WARNING):
        photos = load_photos(tmp_path, data_config(tmp_path), CPU)

    assert len(photos) == 5
    for name in ("torn.jpg", "words.jpg", "small.png"):
        assert sum(name in message for message in caplog.messages) == 1
    assert "smaller than the crop of 32" in caplog.text


def test_crops_have_the_range_and_memory_layout_of_the_networks(domains: Path) -> None:
    photos = load_photos(domains / "trainA", data_config(domains), CPU)
    crops = photos.crops([Cut(0, 0.0, 0.5, False), Cut(1, 1.0, 0.0, True)])
    assert crops.shape == (2, 3, 32, 32)
    assert crops.is_contiguous(memory_format=torch.channels_last)
    assert -1 <= crops.min() < 0 < crops.max() <= 1


def test_a_mirrored_crop_is_the_crop_mirrored(domains: Path) -> None:
    photos = load_photos(domains / "trainA", data_config(domains), CPU)
    plain, mirrored = photos.crops([Cut(3, 0.2, 0.7, False), Cut(3, 0.2, 0.7, True)])
    assert torch.equal(plain.flip(2), mirrored)


def test_a_set_too_large_for_memory_streams_the_same_crops(domains: Path) -> None:
    memory = load_photos(domains / "trainB", data_config(domains), CPU)
    streamed = load_photos(domains / "trainB", data_config(domains, memory_bytes=10_000), CPU)
    assert isinstance(memory, MemoryPhotos)
    assert isinstance(streamed, StreamedPhotos)
    cuts = [Cut(number, number / 16, 0.3, number % 2 == 0) for number in range(16)]
    assert torch.equal(memory.crops(cuts), streamed.crops(cuts))


def test_a_streamed_photo_that_is_deleted_stops_the_run(tmp_path: Path, domains: Path) -> None:
    shutil.copytree(domains / "trainB", tmp_path / "photos")
    streamed = load_photos(tmp_path / "photos", data_config(tmp_path, memory_bytes=1), CPU)
    (tmp_path / "photos" / "03.png").unlink()
    with pytest.raises(StopRun, match=r"03\.png"):
        streamed.crops([Cut(3, 0, 0, False)])


def test_training_photos_that_are_also_test_photos_are_left_out(tmp_path: Path, domains: Path) -> None:
    shutil.copytree(domains / "trainA", tmp_path / "train")
    shutil.copy(domains / "testA" / "00.png", tmp_path / "train" / "renamed.png")
    config = data_config(tmp_path, held_out=(domains / "testA",))
    assert len(load_photos(tmp_path / "train", config, CPU)) == 20


@pytest.mark.parametrize(("photos", "words"), [(0, "holds no images"), (1, "1 usable photos")])
def test_too_few_photos_are_an_error(tmp_path: Path, photos: int, words: str) -> None:
    for number in range(photos):
        Image.new("RGB", (50, 50), (number, 0, 0)).save(tmp_path / f"{number}.png")
    with pytest.raises(SetupError, match=words):
        load_photos(tmp_path, data_config(tmp_path), CPU)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="There is no folder"):
        load_photos(tmp_path / "none", data_config(tmp_path), CPU)
