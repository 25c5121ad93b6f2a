"""A list as a source."""

from __future__ import annotations

from engine.options import Options, Size
from engine.records import Encoded, Failed, Record
from engine.testing import MemorySink, MemorySource


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


def test_it_keeps_results_and_failures_by_key() -> None:
    sink = MemorySink()
    encoded = Encoded(data=b"1234", format="PNG", width=3, height=2, notes=("n",))
    record = Record(key="a", payload=encoded, options=Options())
    stored = sink.store(record)
    assert (stored.location, stored.num_bytes, stored.width, stored.height, stored.notes) == ("a", 4, 3, 2, ("n",))
    failed = record.failed("store", "bad")
    sink.reject(failed)
    assert sink.settle([failed]) == [failed]
    assert (sink.results, sink.failures) == ({"a": encoded}, {"a": "bad"})
