"""Memory limit of concurrent reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import SkipImage
from engine.stream.jobs import JobState, Message
from engine.stream.read_memory import NeedsMemory, ReadLimits, ReadMemory


def job(needs_bytes: int) -> JobState:
    message = Message("jobs", 0, 0, 0.0, None, b"")
    return JobState(message=message, epoch=1, id="x", wait_s=0.0, needs_bytes=needs_bytes)


def test_half_of_the_memory_is_divided_among_the_threads() -> None:
    assert ReadMemory(1000, 5).small_bytes == 100


def test_large_images_share_the_other_half_in_order_of_arrival() -> None:
    memory, parked = ReadMemory(1000, 5), list[JobState]()
    first, second, third, fourth = job(300), job(200), job(400), job(100)
    assert memory.enter(first, parked.append)
    assert memory.enter(second, parked.append)
    assert not memory.enter(third, parked.append)
    assert not memory.enter(fourth, parked.append), "it would fit, but would hold back the larger one for ever"
    assert parked == [third, fourth]
    assert memory.leave(second) == []
    assert memory.leave(first) == [third]
    assert memory.enter(third, parked.append)
    assert memory.ready() == [fourth]
    assert memory.enter(fourth, parked.append)


def test_an_image_larger_than_the_memory_is_read_alone() -> None:
    memory = ReadMemory(1000, 5)
    giant, small = job(5000), job(150)
    assert memory.enter(giant, lambda _: None)
    assert not memory.enter(small, lambda _: None)
    assert memory.leave(giant) == [small]
    assert memory.enter(small, lambda _: None)
    assert not memory.enter(giant, lambda _: None)


def test_releasing_twice_frees_memory_once() -> None:
    memory = ReadMemory(1000, 5)
    first, waiting = job(400), job(400)
    assert memory.enter(first, lambda _: None)
    assert not memory.enter(waiting, lambda _: None)
    assert memory.leave(first) == [waiting]
    assert memory.leave(first) == []


def test_a_job_that_is_dropped_before_it_is_queued_again_does_not_block_others() -> None:
    memory = ReadMemory(1000, 5)
    first, lost, other = job(500), job(500), job(500)
    assert memory.enter(first, lambda _: None)
    assert [memory.enter(late, lambda _: None) for late in (lost, other)] == [False, False]
    assert memory.leave(first) == [lost], "its partition goes to another worker, so it never enters"
    assert memory.ready() == [other]
    assert memory.enter(other, lambda _: None)


@given(st.lists(st.integers(1, 900), max_size=40))
def test_every_job_is_read_within_the_limit(sizes: list[int]) -> None:
    memory, reading, done = ReadMemory(1000, 5), list[JobState](), 0
    jobs = [job(size) for size in sizes]
    while jobs:
        state = jobs.pop(0)
        if memory.enter(state, lambda _: None):
            reading.append(state)
            assert len(reading) == 1 or sum(one.needs_bytes for one in reading) <= 500
        if len(reading) > 2 or not jobs:
            for one in reading:
                jobs += memory.leave(one)
                done += 1
            reading.clear()
            jobs += memory.ready()
    assert done == len(sizes)


@pytest.mark.parametrize(
    ("num_bytes", "now_bytes", "outcome"), [(10, 10, None), (11, 10, 11), (10, None, None), (101, 10, "max-bytes")]
)
def test_an_image_of_known_size_is_admitted_needs_memory_or_is_refused(
    num_bytes: int, now_bytes: int | None, outcome: int | str | None
) -> None:
    limits = ReadLimits(100, now_bytes)
    if outcome is None:
        limits.admit(num_bytes)
    elif isinstance(outcome, int):
        with pytest.raises(NeedsMemory) as raised:
            limits.admit(num_bytes)
        assert raised.value.num_bytes == outcome
    else:
        with pytest.raises(SkipImage, match=outcome):
            limits.admit(num_bytes)


def test_an_image_of_unknown_size_needs_the_largest_permitted_memory() -> None:
    with pytest.raises(NeedsMemory) as raised:
        ReadLimits(100, 10).admit_so_far(11)
    assert raised.value.num_bytes == 100
    ReadLimits(100, 10).admit_so_far(10)
    with pytest.raises(SkipImage, match="101 bytes, over the limit of 100"):
        ReadLimits(100, 100).admit_so_far(101)


def test_a_read_takes_more_memory_where_it_is_free() -> None:
    asked = list[int]()

    def more(num_bytes: int) -> bool:
        asked.append(num_bytes)
        return num_bytes <= 50

    known, unknown = ReadLimits(100, 10, more), ReadLimits(100, 10, more)
    known.admit(40)
    assert (known.most, asked) == (40, [40])
    with pytest.raises(NeedsMemory):
        known.admit_so_far(41)
    with pytest.raises(NeedsMemory):
        unknown.admit_so_far(11)
    assert asked == [40, 100, 100], "an image of unknown size may be as large as permitted"


def test_memory_is_reserved_at_once_unless_another_job_waits_for_it() -> None:
    memory = ReadMemory(1000, 5)
    first, second, waiting = job(0), job(0), job(400)
    assert memory.take(first, 300)
    assert memory.take(first, 200), "in place of the 300"
    assert memory.take(second, 300)
    assert not memory.enter(waiting, lambda _: None)
    assert not memory.take(second, 100), "it would pass the one that waits"
    assert memory.leave(first) == []
    assert memory.leave(second) == [waiting]


def test_unused_memory_of_a_read_is_released() -> None:
    memory = ReadMemory(1000, 5)
    first, waiting = job(500), job(400)
    assert memory.enter(first, lambda _: None)
    assert not memory.enter(waiting, lambda _: None)
    assert memory.keep(first, 600) == []
    assert memory.keep(first, 50) == [waiting]
    assert memory.enter(waiting, lambda _: None)
    assert not memory.take(job(0), 51), "50 and 400 are held"
