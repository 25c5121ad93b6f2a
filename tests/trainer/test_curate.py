from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from engine.errors import SetupError
from trainer.cli import commands
from trainer.curate import CurateConfig, curate, measure

GREEN, SNOW, ROCK = (90, 140, 60), (235, 235, 240), (120, 110, 105)


def landscape(
    ground: tuple[int, int, int], share: float = 1.0, seed: int = 0
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return 256x256 pixels: blue sky in the upper 37.5 %, below it `share` of `ground` and rock for the rest."""
    pixels = np.empty((256, 256, 3))
    pixels[:96] = (80, 120, 220)
    pixels[96:] = ROCK
    pixels[96 : 96 + round(160 * share)] = ground
    pixels += np.random.default_rng(seed).normal(0, 8, (256, 256, 1))
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    contents = {
        "trainA": [landscape(GREEN), landscape(GREEN, 0.3, 1), landscape(SNOW, 0.5, 2), landscape(ROCK, 1, 3)],
        "trainB": [landscape(SNOW, 1, 4), landscape(SNOW, 0.1, 5), landscape(GREEN, 1, 6)],
        "testA": [landscape(GREEN, 1, 7), landscape(ROCK, 1, 8)],
        "testB": [landscape(SNOW, 0.6, 9), landscape(GREEN, 1, 10)],
    }
    for split, photos in contents.items():
        (folder / split).mkdir(parents=True)
        for number, photo in enumerate(photos):
            Image.fromarray(photo).save(folder / split / f"{number}.png")
    return folder


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_measures_are_shares_of_the_ground(share: float) -> None:
    snowy, green = (measure(torch.from_numpy(landscape(ground, share))) for ground in (SNOW, GREEN))
    assert snowy.snow == pytest.approx(share, abs=0.02)
    assert green.green == pytest.approx(share, abs=0.02)
    assert snowy.green < 0.02 > green.snow


@pytest.mark.parametrize("edges", [0, 1, 2, 4])
def test_flat_edges_are_counted(edges: int) -> None:
    photo = torch.from_numpy(landscape(GREEN))
    for edge in (photo[:3], photo[-3:], photo[:, :3], photo[:, -3:])[:edges]:
        edge[:] = 255
    assert measure(photo).flat_edges == edges


def test_photos_that_show_their_season_are_linked_within_their_split(data: Path, tmp_path: Path) -> None:
    splits = {split.name: split for split in curate(data, tmp_path / "out", CurateConfig())}

    kept = {name: sorted(path.name for path in (tmp_path / "out" / name).iterdir()) for name in splits}
    assert kept == {"trainA": ["0.png", "1.png"], "trainB": ["0.png"], "testA": ["0.png"], "testB": ["0.png"]}
    for name in kept:
        link = tmp_path / "out" / name / "0.png"
        assert link.is_symlink()
        assert link.resolve() == (data / name / "0.png").resolve()
        with Image.open(tmp_path / "out" / f"{name}.jpg") as sheet:
            assert sheet.height > 2 * 128  # a row of kept photos and one of photos left out
    assert len((tmp_path / "out" / "measures.tsv").read_text().splitlines()) == 1 + 11


def test_framed_photos_and_copies_of_test_photos_are_left_out(data: Path, tmp_path: Path) -> None:
    framed = landscape(GREEN, 1, 11)
    framed[:4] = framed[-4:] = 255
    Image.fromarray(framed).save(data / "trainA" / "framed.png")
    (data / "trainA" / "copy.png").write_bytes((data / "testA" / "0.png").read_bytes())
    curate(data, tmp_path / "out", CurateConfig())
    assert sorted(path.name for path in (tmp_path / "out" / "trainA").iterdir()) == ["0.png", "1.png"]


def test_thresholds_are_options_and_counts_are_printed(data: Path, tmp_path: Path) -> None:
    (data / "trainB" / "torn.png").write_bytes(b"no image")
    (data / "trainB" / "\x1b]0;owned\x07.png").write_bytes(b"no image")
    arguments = ["curate", str(data), "--out", str(tmp_path / "out"), "--b-min-snow", "0.05"]
    result = CliRunner().invoke(commands, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "trainB: 2 of 5 photos kept" in result.output
    assert "Left out torn.png" in result.output
    assert r"Left out \x1b]0;owned\x07.png" in result.output


def test_a_folder_with_files_and_thresholds_that_keep_nothing_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not empty"):
        curate(data, data, CurateConfig())
    with pytest.raises(SetupError, match="loosen the thresholds"):
        curate(data, tmp_path / "out", CurateConfig(b_min_snow=1.0))
    assert not (tmp_path / "out").exists()
