"""Pictures for people to look at: sheets of photos beside their translations, and loss curves."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.system.files import write_atomically

Pixels = NDArray[np.uint8]
"""One image, uint8 [H, W, 3]."""

LOSSES = ("fool", "cycle", "identity", "real")
"""How the names of losses in a log begin."""
GAP = 4
"""Pixels of white between two images."""


def draw_sheet(rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Lay out `rows` of images on white; images of a row stand side by side, top edges aligned."""
    heights = [max(image.shape[0] for image in row) for row in rows]
    width = max(sum(image.shape[1] + GAP for image in row) for row in rows)
    sheet = np.full((sum(heights) + GAP * (len(rows) + 1), width + GAP, 3), 255, np.uint8)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        left = GAP
        for image in row:
            sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
            left += image.shape[1] + GAP
        top += height + GAP
    return sheet


def save_sheet(path: Path, rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Write `rows` to `path` as PNG, or as JPEG where the name says so, and return the pixels."""
    sheet = draw_sheet(rows)
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, kind, quality=88, optimize=True)
    write_atomically(path, buffer.getvalue())
    return sheet


def draw_curves(path: Path, log: Sequence[Mapping[str, float]]) -> None:
    """Draw every loss in `log` over the epochs and write the picture to `path` as PNG."""
    from matplotlib.figure import Figure  # slow to import and needed once, at the end

    names = [name for name in (log[0] if log else {}) if name.startswith(LOSSES)]
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name in names:
        axes.plot([entry["epoch"] for entry in log], [entry[name] for entry in log], label=name, linewidth=0.8)
    axes.set(xlabel="epoch", ylabel="loss, weighted as in the objective", ylim=(0, None))
    if names:
        axes.legend(ncols=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_atomically(path, buffer.getvalue())
