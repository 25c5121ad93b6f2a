from __future__ import annotations

from pathlib import Path

from PIL import Image

from engine.bench.document import Document
from engine.bench.pictures import draw


def test_three_pictures_are_drawn(measured: Document, tmp_path: Path) -> None:
    paths = draw(measured, tmp_path / "pictures")

    assert [path.name for path in paths] == ["stages.png", "batch.png", "size.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert picture.width > 600
            assert len(picture.convert("RGB").getcolors(1 << 24) or ()) > 10
