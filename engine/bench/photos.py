"""Photos to measure with: real ones scaled to the size that is measured, with a sensor's grain, all different.

Enlarged photos alone would compress too well, and decode faster than a camera's do; grain brings them to some 0.3
bytes per pixel, as camera JPEGs have. Where no folder of photos is given, the repository's samples are used, and
made-up scenes where Solstice was installed without them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.codec import jpeg
from engine.codec.geometry import resize
from engine.errors import SetupError

SAMPLES = Path(__file__).parents[2] / "samples"
"""The repository's photos; not part of the installed package."""
QUALITY = 92
_GRAIN = 5.0  # grey levels, standard deviation
_BAND_ROWS = 256
_MADE_UP = 8


@dataclass(frozen=True)
class Scenes:
    """Small photos from which the measured ones are made."""

    origin: str
    """`samples`, `made up`, or the folder."""
    pixels_HWC: Sequence[Tensor]
    """uint8 [H, W, 3] each."""

    def jpeg(self, number: int, width: int, height: int) -> bytes:
        """Return photo `number` as a JPEG of `width` x `height`; every number gives another photo."""
        random = np.random.default_rng(number)
        scene_HWC = self.pixels_HWC[number % len(self.pixels_HWC)]
        photo_HWC = resize(_cut(scene_HWC, width / height), width, height).numpy()
        if random.random() < 0.5:
            photo_HWC = photo_HWC[:, ::-1].copy()
        for top in range(0, height, _BAND_ROWS):  # the grain of 12 megapixels at once would take 300 MB
            band = photo_HWC[top : top + _BAND_ROWS]
            grain = random.normal(0, _GRAIN, band.shape[:2]).astype(np.int16)[..., None]
            band[:] = np.clip(band + grain, 0, 255)
        return jpeg.encode(photo_HWC, QUALITY, "4:2:0")

    def write(self, folder: Path, count: int, width: int, height: int) -> list[Path]:
        """Write `count` photos of `width` x `height` pixels into `folder`, and return their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{number:06d}.jpg" for number in range(count)]
        for number, path in enumerate(paths):
            path.write_bytes(self.jpeg(number, width, height))
        return paths


def find_scenes(folder: Path | None = None) -> Scenes:
    """Return the JPEGs of `folder`, or else the repository's samples, or else made-up scenes.

    Raises `SetupError` when `folder` holds no JPEG that can be decoded.
    """
    if folder is not None:
        return Scenes(str(folder), _decoded(folder))
    if SAMPLES.is_dir():
        return Scenes("samples", _decoded(SAMPLES))
    return Scenes("made up", [_made_up(seed) for seed in range(_MADE_UP)])


def link_photos(photos: Sequence[Path], folder: Path, count: int) -> None:
    """Fill `folder` with `count` names for `photos`, in sub-folders of a thousand."""
    for i in range(count):
        below = folder / f"{i // 1000:04d}"
        if i % 1000 == 0:
            below.mkdir(parents=True, exist_ok=True)
        os.link(photos[i % len(photos)], below / f"{i:06d}.jpg")


def _decoded(folder: Path) -> list[Tensor]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    scenes = []
    for path in paths:
        try:
            scenes.append(torch.from_numpy(jpeg.decode_rgb(path.read_bytes())))
        except (OSError, ValueError):
            continue
    if not scenes:
        raise SetupError(f"{folder} holds no JPEG that can be decoded; name a folder of photos, or leave out --photos.")
    return scenes


def _cut(scene_HWC: Tensor, aspect: float) -> Tensor:
    """Cut the middle of a scene to the aspect ratio width / height, so that it is not distorted."""
    height, width, _ = scene_HWC.shape
    kept_width, kept_height = min(width, round(height * aspect)), min(height, round(width / aspect))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return scene_HWC[top : top + kept_height, left : left + kept_width].contiguous()


def _made_up(seed: int, side: int = 512) -> Tensor:
    """Return shapes at several scales with the amplitude of each proportional to its size, as in photographs."""
    random = np.random.default_rng(1_000_000 + seed)
    scene: NDArray[np.float32] = np.zeros((side, side, 3), np.float32)
    for cells in (4, 8, 16, 32, 64, 128):
        coarse = torch.from_numpy(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        scene += (resize(coarse, side, side).numpy().astype(np.float32) - 128) * (4 / cells) ** 0.7
    return torch.from_numpy(np.clip(scene + 128, 0, 255).astype(np.uint8))
