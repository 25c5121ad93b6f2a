"""Helpers for tests of listings."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import SkipImage
from engine.listing import Input, Selection, list_inputs

DATA = b"bytes of an image"


def fill(root: Path, *names: str) -> Path:
    """Write a file of `DATA` for each name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(DATA)
    return root


def keys(src: Path, skip: Path | None = None, selection: Selection | None = None) -> list[str]:
    """Return the keys of a listing."""
    return [item.key for item in list_inputs(src, skip, selection)]


def left_out(src: Path, skip: Path | None = None, selection: Selection | None = None) -> dict[str, int]:
    """Return what a listing leaves out, by kind."""
    return dict(list_inputs(src, skip, selection).left_out)


def reason(item: Input) -> str:
    """Return why an input cannot be read."""
    with pytest.raises(SkipImage) as caught:
        item.read()
    return str(caught.value)
