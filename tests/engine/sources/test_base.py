"""Every source is a `Source`, by its shape."""

from __future__ import annotations

from engine.sources.archive import ArchiveSource
from engine.sources.base import Source
from engine.sources.memory import MemorySource


def test_the_sources_that_are_shipped_keep_the_protocol() -> None:
    """mypy checks the signatures of this line; the names are checked here."""
    sources: list[type[Source]] = [MemorySource, ArchiveSource]
    promised = {name for name in vars(Source) if not name.startswith("_")}
    assert promised == {"records", "acknowledge"}
    for source in sources:
        assert promised <= set(dir(source))
