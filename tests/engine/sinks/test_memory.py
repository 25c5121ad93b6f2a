"""A dictionary as a sink."""

from __future__ import annotations

from engine.records import Encoded, Options, Record
from engine.sinks.memory import MemorySink


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
