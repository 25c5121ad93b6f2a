from __future__ import annotations

from engine.bench.document import Document
from engine.bench.rows import rows_of


def test_no_two_measurements_share_a_name(measured: Document) -> None:
    names = [(row.group, row.name, row.unit) for row in rows_of(measured)]

    assert len(set(names)) == len(names)
    assert ("tiny photos, 96x64", "files to files", "images/s") in names


def test_memory_and_latency_are_better_when_lower(document: Document) -> None:
    one = {"median": 1.0, "min": 1.0, "max": 1.0, "values": [1.0]}
    document["queue"] = {"jobs_per_s": one, "half_load_median_ms": one, "half_load_p99_ms": one}

    lower = {row.name for row in rows_of(document) if not row.higher_is_better}

    assert {"peak memory", "half load, median", "half load, 99 %"} <= lower
