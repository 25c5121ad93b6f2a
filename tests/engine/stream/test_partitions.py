from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.stream.partitions import OffsetTracker


@given(st.data())
def test_the_watermark_never_passes_an_unfinished_offset(data: st.DataObject) -> None:
    tracker = OffsetTracker()
    unfinished: list[int] = []
    last, watermark = data.draw(st.integers(0, 1000)) - 1, -1
    for ends_one in data.draw(st.lists(st.booleans(), max_size=60)):
        if unfinished and ends_one:
            tracker.finish(unfinished.pop(data.draw(st.integers(0, len(unfinished) - 1))))
        else:
            last += data.draw(st.integers(1, 5))  # gaps, as compaction leaves
            tracker.take(last)
            unfinished.append(last)
        # It stands at the first unfinished offset, or after the last one, and never goes back.
        assert tracker.watermark == (min(unfinished) if unfinished else last + 1)
        assert tracker.watermark >= watermark
        watermark = tracker.watermark
        assert tracker.num_unfinished == len(unfinished)
        assert tracker.gap == (last + 1 - min(unfinished) if unfinished else 0)


def test_before_the_first_job_there_is_nothing_to_commit() -> None:
    assert OffsetTracker().watermark is None
    assert OffsetTracker().gap == 0


def test_offsets_that_go_back_are_refused() -> None:
    tracker = OffsetTracker()
    tracker.take(5)
    with pytest.raises(ValueError, match="offset 5 comes after 5"):
        tracker.take(5)


def test_a_job_ends_once() -> None:
    tracker = OffsetTracker()
    tracker.take(5)
    tracker.finish(5)
    with pytest.raises(KeyError):
        tracker.finish(5)
