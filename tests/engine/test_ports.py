"""Every source is a `Source`, by its shape."""

from __future__ import annotations

from engine.archive.sink import ArchiveSink
from engine.archive.source import ArchiveSource
from engine.ports import ArchiveOutput, Sink, Source
from engine.testing import MemorySink, MemorySource


def test_the_sources_that_are_shipped_keep_the_protocol() -> None:
    """mypy checks the signatures of this line; the names are checked here."""
    sources: list[type[Source]] = [MemorySource, ArchiveSource]
    promised = {name for name in vars(Source) if not name.startswith("_")}
    assert promised == {"records", "acknowledge", "checkpoint"}
    for source in sources:
        assert promised <= set(dir(source))


def test_the_sinks_that_are_shipped_keep_the_protocol() -> None:
    """mypy checks the signatures of these lines; the names are checked here."""
    sinks: list[type[Sink]] = [MemorySink, ArchiveSink]
    outputs: list[type[ArchiveOutput]] = [ArchiveSink]
    promised = {name for name in vars(Sink) if not name.startswith("_")}
    assert promised == {"store", "reject", "settle"}
    for sink in [*sinks, *outputs]:
        assert promised <= set(dir(sink))
    assert "find" in dir(ArchiveSink)
