from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from trainer.sheets import GAP, draw_curves, draw_sheet, save_sheet


def image(height: int, width: int, value: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((height, width, 3), value, np.uint8)


def test_rows_and_columns_are_separated_by_white() -> None:
    sheet = draw_sheet([[image(10, 20, 1), image(10, 20, 2)], [image(30, 5, 3)]])
    assert sheet.shape == (10 + 30 + 3 * GAP, 2 * 20 + 3 * GAP, 3)
    assert (sheet[GAP : GAP + 10, GAP : GAP + 20] == 1).all()
    assert (sheet[GAP : GAP + 10, 2 * GAP + 20 : 2 * GAP + 40] == 2).all()
    assert (sheet[2 * GAP + 10 : 2 * GAP + 40, GAP : GAP + 5] == 3).all()
    assert (sheet[:GAP] == 255).all()


def test_a_saved_sheet_is_the_drawn_one(tmp_path: Path) -> None:
    drawn = save_sheet(tmp_path / "deep" / "sheet.png", [[image(8, 8, 7)]])
    with Image.open(tmp_path / "deep" / "sheet.png") as loaded:
        assert np.array_equal(np.asarray(loaded), drawn)


def test_curves_show_losses_and_accept_an_empty_log(tmp_path: Path) -> None:
    log = [{"step": 1.0, "epoch": epoch / 4, "rate": 1.0, "fool_a": 1 / (1 + epoch)} for epoch in range(8)]
    draw_curves(tmp_path / "losses.png", log)
    draw_curves(tmp_path / "empty.png", [])
    with Image.open(tmp_path / "losses.png") as curves, Image.open(tmp_path / "empty.png") as empty:
        assert curves.size == empty.size
        assert not np.array_equal(np.asarray(curves), np.asarray(empty))
