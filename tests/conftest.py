"""What some tests need, and what happens where it is missing: skipped on a laptop, failing where it must run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

PHOTOS = Path(os.environ.get("SOLSTICE_PHOTOS", Path(__file__).parents[2] / "shared/data/photos"))
"""The shared photo collection: folders of photos and INDEX.tsv."""

NEEDS: dict[str, tuple[str, Callable[[], bool], str]] = {
    "needs_cuda": ("CUDA", torch.cuda.is_available, "no NVIDIA GPU"),
    "needs_photos": ("PHOTOS", lambda: (PHOTOS / "INDEX.tsv").exists(), f"no photo collection at {PHOTOS}"),
    "needs_exiftool": ("EXIFTOOL", lambda: shutil.which("exiftool") is not None, "exiftool is not installed"),
    "needs_browser": (
        "BROWSER",
        lambda: shutil.which("chromium") is not None and shutil.which("chromedriver") is not None,
        "chromium and chromedriver are not installed",
    ),
}
"""For each marker: the NAME in SOLSTICE_REQUIRE_NAME, whether it is there, and what to say when it is not."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose need is missing; fail it where SOLSTICE_REQUIRE_... is 1."""
    for marker, (name, is_there, missing) in NEEDS.items():
        if item.get_closest_marker(marker) is None or is_there():
            continue
        if os.environ.get(f"SOLSTICE_REQUIRE_{name}") == "1":
            pytest.fail(f"{missing}, and SOLSTICE_REQUIRE_{name} is 1", pytrace=False)
        pytest.skip(missing)


@pytest.fixture(scope="session")
def photos() -> Path:
    """Return the folder of the shared photo collection; for tests marked `needs_photos`."""
    return PHOTOS
