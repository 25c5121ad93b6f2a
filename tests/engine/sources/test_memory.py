"""A list as a source."""

from __future__ import annotations

from engine.records import Failed, Options, Record, Size
from engine.sources.memory import MemorySource


def test_it_gives_its_images_and_ticks_in_order_and_keeps_what_it_is_told() -> None:
    options = Options(size=Size.parse("native"))
    source = MemorySource([("a", b"1"), None, ("b", b"2")], options)
    first, tick, second = source.records()
    assert tick is None
    assert isinstance(first, Record)
    assert isinstance(second, Record)
    assert [(r.key, r.payload, r.options) for r in (first, second)] == [("a", b"1", options), ("b", b"2", options)]
    outcome: Failed = first.failed("decode", "bad")
    source.acknowledge(outcome)
    assert source.outcomes == [outcome]
