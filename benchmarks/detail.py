"""Draw the comparison of native, plain and guided in docs/detail.md.

Each photo has two rows: the whole photo reduced, and a crop at its own resolution. The columns are the photo, native,
plain and guided, made with `solstice convert`.

    python -m benchmarks.detail PHOTO:X,Y [PHOTO:X,Y …] --model summer2winter --out docs/detail.jpg
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.common import run
from engine.codec.arrays import Pixels
from trainer.sheets import save_sheet

WAYS = (("native", "none"), ("512", "plain"), ("512", "guided"))
"""`--size` and `--detail` of the columns after the photo."""
SIDE = 360
"""Width of a column in pixels."""


def rows_of(photo: Path, corner: tuple[int, int], model: str) -> list[list[Pixels]]:
    """Return the two rows of `photo`; `corner` is the upper left (x, y) of the crop in pixels."""
    columns = [np.asarray(Image.open(photo).convert("RGB"))]
    for size, detail in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            options = ("--model", model, "--size", size, "--detail", detail, "--format", "png")
            run("-m", "engine", "convert", photo, folder, *options)
            (result,) = Path(folder).glob("*.png")
            columns.append(np.asarray(Image.open(result)))
    x, y = corner
    return [[_small(column) for column in columns], [column[y : y + SIDE, x : x + SIDE] for column in columns]]


def _small(column: Pixels) -> Pixels:
    height = round(column.shape[0] * SIDE / column.shape[1])
    return np.asarray(Image.fromarray(column).resize((SIDE, height), Image.Resampling.LANCZOS))


def main() -> None:
    """Parse, convert, lay out, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", metavar="PHOTO:X,Y")
    parser.add_argument("--model", default="summer2winter")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows: list[list[Pixels]] = []
    for argument in arguments.photos:
        name, _, corner = argument.rpartition(":")
        x, y = map(int, corner.split(","))
        rows += rows_of(Path(name), (x, y), arguments.model)
    save_sheet(arguments.out, rows)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
