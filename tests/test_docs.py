"""The documentation names what exists; `make docs` checks links and anchors of the whole site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
import trainer
from tests import ROOT
from tests.images import photo, picture

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "trainer/README.md",
    ROOT / "deploy/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def test_the_architecture_names_every_package() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    packages = {path.parent for part in ("engine", "trainer", "benchmarks") for path in (ROOT / part).rglob("*.py")}
    missing = [name for path in packages if f"`{(name := str(path.relative_to(ROOT)))}/`" not in text]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:engine|trainer|benchmarks|tests|deploy)/[\w/]+\.\w+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [str(page.relative_to(ROOT)) for page in PAGES]
    assert [page for page in pages if f": {page}\n" not in navigation] == []


def test_the_reference_has_every_public_name() -> None:
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    public = [f"{package.__name__}.{name}" for package in (engine, trainer) for name in package.__all__]
    assert sorted(listed) == sorted(public)


def test_the_python_of_the_readme_runs_and_its_shapes_are_true(tiny_default: Path) -> None:
    (tiny_default / "photos").mkdir()
    (tiny_default / "photos/a.jpg").write_bytes(photo())
    video = np.stack([np.asarray(picture(32, 24, seed)) for seed in range(3)])
    names: dict[str, Any] = {
        "summer": picture(),
        "image": picture(48, 32),
        "video": video,
        "a": video[0],
        "b": picture(),
    }
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3

    exec(blocks[0], names)
    assert names["winter"].size == names["summer"].size
    exec(blocks[1], names)
    assert names["winter"].size == names["image"].size
    assert names["frames"].shape == video.shape
    assert min(names["small"][0].shape[:2]) == min(names["small"][1].size) == 256
    exec(blocks[2], names)
    assert (names["summary"].converted, names["summary"].failed) == (1, 0)
    assert (tiny_default / "winter/a.jpg").exists()
