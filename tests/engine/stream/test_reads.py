"""Share of each origin in the reading threads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.stream.jobs import JobState, Message
from engine.stream.reads import ReadShares


def job(offset: int) -> JobState:
    return JobState(message=Message("jobs", 0, offset, 0.0, None, b""), epoch=1, id=str(offset), wait_s=0.0)


def enter(shares: ReadShares, origin: str, count: int = 1) -> int:
    """Try to begin `count` reads; return how many began."""
    return sum(shares.enter(origin, job(i), lambda _: None) for i in range(count))


def test_one_origin_gets_half_of_the_threads_and_the_next_half_of_the_rest() -> None:
    shares = ReadShares(60)
    assert enter(shares, "slow", 100) == 30
    assert enter(shares, "slower", 100) == 15
    assert enter(shares, "folder") == 1, "some are left for others"


def test_every_origin_gets_a_thread_while_one_is_free() -> None:
    shares = ReadShares(64)
    assert [enter(shares, f"host-{i}", 64) for i in range(6)] == [32, 16, 8, 4, 2, 1]


def test_a_single_thread_is_used() -> None:
    shares = ReadShares(1)
    assert enter(shares, "a", 2) == 1
    assert len(shares.leave("a")) == 1


def test_a_job_waits_without_a_thread_and_is_queued_again_when_a_read_ends() -> None:
    shares, waiting = ReadShares(2), job(7)
    parked: list[JobState] = []
    assert shares.enter("a", job(1), parked.append)
    assert not shares.enter("a", waiting, parked.append)
    assert parked == [waiting]
    assert shares.ready() == []
    assert shares.leave("a") == [waiting]
    assert shares.enter("a", waiting, parked.append)
    assert shares.leave("a") == []


def test_a_job_that_is_dropped_before_it_is_queued_again_does_not_block_others() -> None:
    shares = ReadShares(2)
    assert enter(shares, "a", 4) == 1
    assert len(shares.leave("a")) == 1, "its partition goes to another worker, so it never enters"
    assert len(shares.ready()) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=80), st.integers(1, 9))
def test_every_job_begins_eventually(steps: list[tuple[str, bool]], threads: int) -> None:
    shares = ReadShares(threads)
    reading: list[str] = []
    origins: dict[int, str] = {}
    begun = 0

    def begin(jobs: list[JobState]) -> None:
        nonlocal begun
        for one in jobs:
            if shares.enter(origins[id(one)], one, lambda _: None):
                reading.append(origins[id(one)])
                begun += 1

    kept: list[JobState] = []
    for origin, ends in steps:
        if ends and reading:
            begin(shares.leave(reading.pop()))
        else:
            kept.append(job(len(kept)))
            origins[id(kept[-1])] = origin
            begin([kept[-1]])
        assert len(reading) <= threads
    while reading:
        begin(shares.leave(reading.pop()))
    assert begun == len(kept)
