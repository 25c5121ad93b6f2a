"""Curation of two seasons: keep the photos that show their season, as links in a folder of the same layout.

A photo is reduced to 64x64 pixels (box filter). In the lower 60 % of it,

    snow   share of pixels with max(R, G, B) > 0.62 and saturation < 0.22
    green  share of pixels with G > 1.02 R, G > 1.08 B and saturation > 0.15

for values in [0, 1] and saturation = (max - min) / max. A photo with at least two flat edges has a frame or a caption
and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.codec.arrays import Pixels
from engine.errors import SetupError, SkipImage
from trainer.photos import image_paths, load_photo, training_paths
from trainer.sheets import save_labelled_sheet

SIDE = 64
SKIPPED_ROWS = 24
"""Rows of the reduced photo that are not looked at: mostly sky."""
LOADED = 256
"""Short side in pixels at which photos are decoded."""
EDGE = 2
"""Width in pixels of the edges that are checked for a frame."""
FLAT_BELOW = 3.0
"""Standard deviation of a flat edge, of 255."""
THREADS = 4
COLUMNS, ROWS = 8, 3
"""Photos on each half of a sheet."""


@dataclass(frozen=True, kw_only=True)
class CurateConfig:
    """Thresholds on the measures of both domains."""

    a_max_snow: float = 0.08
    """Photos of A show less snow than this share."""
    a_min_green: float = 0.15
    """Photos of A show more green than this share."""
    b_min_snow: float = 0.22
    """Photos of B show more snow than this share."""
    b_max_green: float = 0.25
    """Photos of B show less green than this share."""
    max_flat_edges: int = 1
    """Photos with more flat edges are left out."""

    def keeps(self, photo: Measures, domain: str) -> bool:
        """Return whether a photo of domain `A` or `B` is kept."""
        if photo.flat_edges > self.max_flat_edges:
            return False
        if domain == "A":
            return photo.snow < self.a_max_snow and photo.green > self.a_min_green
        return photo.snow > self.b_min_snow and photo.green < self.b_max_green


@dataclass(frozen=True)
class Measures:
    """Measures of one photo."""

    snow: float
    green: float
    flat_edges: int


@dataclass(frozen=True)
class CuratedSplit:
    """Outcome for one folder, such as `trainA`."""

    name: str
    kept: list[tuple[Path, Measures]]
    left_out: list[tuple[Path, Measures]]
    unreadable: list[str]
    """Reasons, with file names."""


def curate(data: Path, out: Path, config: CurateConfig) -> list[CuratedSplit]:
    """Link the kept photos of `data` (trainA, trainB, and testA, testB if present) from the new folder `out`.

    Photos stay in their split; a training photo with the same bytes as a test photo is left out altogether. Writes
    `measures.tsv` and one sheet per split, with kept photos above and photos left out below. Raises `SetupError` if
    `out` is not empty, a training folder is missing, or nothing of a folder would be kept.
    """
    if out.exists() and any(out.iterdir()):
        raise SetupError(f"{out} is not empty; choose a new folder.")
    tests = [data / name for name in ("testA", "testB") if (data / name).is_dir()]
    paths = {name: training_paths(data / name, tests) for name in ("trainA", "trainB")}
    paths |= {folder.name: image_paths(folder) for folder in tests}
    splits = [_split(name, photos, config) for name, photos in paths.items()]
    for split in splits:
        if not split.kept:
            raise SetupError(f"No photo of {data / split.name} would be kept; loosen the thresholds.")
    for split in splits:
        _write(split, out)
    (out / "measures.tsv").write_text("".join(f"{line}\n" for line in _table(splits)))
    return splits


def measure(pixels_HWC: Tensor) -> Measures:
    """Return the measures of one photo, uint8 [H, W, 3]."""
    image = pixels_HWC.permute(2, 0, 1)[None].double() / 255
    red, green, blue = F.adaptive_avg_pool2d(image, SIDE)[0, :, SKIPPED_ROWS:]
    brightest, darkest = (choose(choose(red, green), blue) for choose in (torch.maximum, torch.minimum))
    saturation = (brightest - darkest) / brightest.clamp_min(1e-9)
    snowy = (brightest > 0.62) & (saturation < 0.22)
    is_green = (green > 1.02 * red) & (green > 1.08 * blue) & (saturation > 0.15)
    return Measures(float(snowy.double().mean()), float(is_green.double().mean()), _flat_edges(pixels_HWC.double()))


def _flat_edges(pixels_HWC: Tensor) -> int:
    edges = (pixels_HWC[:EDGE], pixels_HWC[-EDGE:], pixels_HWC[:, :EDGE], pixels_HWC[:, -EDGE:])
    return sum(bool((edge.flatten(0, 1).std(0, correction=0) < FLAT_BELOW).all()) for edge in edges)


def _split(name: str, paths: Sequence[Path], config: CurateConfig) -> CuratedSplit:
    split = CuratedSplit(name, [], [], [])
    with ThreadPoolExecutor(THREADS) as threads:
        for path, measures in zip(paths, threads.map(_measure_file, paths), strict=True):
            if isinstance(measures, str):
                split.unreadable.append(measures)
            elif config.keeps(measures, name[-1]):
                split.kept.append((path, measures))
            else:
                split.left_out.append((path, measures))
    return split


def _measure_file(path: Path) -> Measures | str:
    try:
        return measure(load_photo(path, load=LOADED))
    except SkipImage as reason:
        return str(reason)


def _write(split: CuratedSplit, out: Path) -> None:
    (out / split.name).mkdir(parents=True)
    for path, _ in split.kept:
        (out / split.name / path.name).symlink_to(path.resolve())
    rows = [*_rows(split.kept), *_rows(split.left_out)]
    save_labelled_sheet(out / f"{split.name}.jpg", rows)


def _rows(photos: Sequence[tuple[Path, Measures]]) -> Iterator[list[tuple[Pixels, str]]]:
    """Yield rows of photos with their measures, evenly spaced from the least to the most snow."""
    ordered = sorted(photos, key=lambda photo: photo[1].snow)
    count = min(len(ordered), COLUMNS * ROWS)
    chosen = [ordered[place * len(ordered) // count] for place in range(count)]
    for first in range(0, count, COLUMNS):
        row = chosen[first : first + COLUMNS]
        yield [(load_photo(path, load=2 * SIDE).numpy(), f"{m.snow:.2f} snow {m.green:.2f} green") for path, m in row]


def _table(splits: Sequence[CuratedSplit]) -> Iterator[str]:
    yield "split\tphoto\tsnow\tgreen\tflat_edges\tkept"
    for split in splits:
        for kept, photos in ((1, split.kept), (0, split.left_out)):
            for path, m in photos:
                yield f"{split.name}\t{path.name}\t{m.snow:.4f}\t{m.green:.4f}\t{m.flat_edges}\t{kept}"
