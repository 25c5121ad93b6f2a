"""The documentation names what exists; `make docs` checks links and anchors of the whole site."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import engine
import trainer
from tests import ROOT

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


def test_the_reference_has_every_public_name() -> None:
    listed = re.findall(r"^::: (\S+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    public = [f"{package.__name__}.{name}" for package in (engine, trainer) for name in package.__all__]
    assert sorted(listed) == sorted(public)
