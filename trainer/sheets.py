"""Sheets, which show photos beside their translations, and plots of losses."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.codec.arrays import Pixels
from engine.system.files import write_atomically

LOSSES = ("fool", "cycle", "identity", "real")
"""Prefixes of the names of losses in a log."""
GAP = 4
"""Width in pixels of the white space around each image."""
LABEL = 14
"""Height in pixels of the label below an image."""


def draw_sheet(rows: Sequence[Sequence[Pixels]]) -> Pixels:
    """Return a sheet, uint8 [H, W, 3], with `rows` of images on white.

    Images, uint8 [H, W, 3], may differ in size; those of a row are side by side with aligned top edges.
    """
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
    """Write the sheet of `rows` to `path` and return its pixels; the suffix .jpg or .jpeg means JPEG, any other PNG."""
    sheet = draw_sheet(rows)
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, kind, quality=88, optimize=True)
    write_atomically(path, buffer.getvalue())
    return sheet


def save_labelled_sheet(path: Path, rows: Sequence[Sequence[tuple[Pixels, str]]]) -> Pixels:
    """Write a sheet like `save_sheet`, with a line of text below each image."""
    return save_sheet(path, [[_labelled(image, text) for image, text in row] for row in rows])


def _labelled(image: Pixels, text: str) -> Pixels:
    canvas = Image.new("RGB", (image.shape[1], image.shape[0] + LABEL), "white")
    canvas.paste(Image.fromarray(image))
    ImageDraw.Draw(canvas).text((1, image.shape[0]), text, fill="black", font=ImageFont.load_default(LABEL - 4))
    return np.asarray(canvas)


def draw_curves(path: Path, log: Sequence[Mapping[str, float]]) -> None:
    """Plot every loss of `log` over the epochs, and write the plot to `path` as PNG.

    Entries of `log` map `epoch` and the names of losses to values.
    """
    from matplotlib.figure import Figure  # not at the top: slow to import, and used only at the end of a run

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
