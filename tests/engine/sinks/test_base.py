"""Every sink is a `Sink`, by its shape."""

from __future__ import annotations

from engine.sinks.archive import ArchiveSink
from engine.sinks.base import ArchiveOutput, Sink
from engine.sinks.memory import MemorySink


def test_the_sinks_that_are_shipped_keep_the_protocol() -> None:
    """mypy checks the signatures of these lines; the names are checked here."""
    sinks: list[type[Sink]] = [MemorySink, ArchiveSink]
    outputs: list[type[ArchiveOutput]] = [ArchiveSink]
    promised = {name for name in vars(Sink) if not name.startswith("_")}
    assert promised == {"store", "reject", "settle"}
    for sink in [*sinks, *outputs]:
        assert promised <= set(dir(sink))
    assert "find" in dir(ArchiveSink)
