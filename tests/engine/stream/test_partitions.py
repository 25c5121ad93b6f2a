"""Watermarks and jobs in flight of partitions, without a broker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.stream.config import WAITING_SHARE, KafkaSourceConfig
from engine.stream.jobs import JobState, Message
from engine.stream.partitions import Assignment, OffsetTracker, Where


@given(st.data())
def test_the_watermark_never_passes_an_unfinished_offset(data: st.DataObject) -> None:
    tracker = OffsetTracker()
    unfinished: list[int] = []
    last, watermark = data.draw(st.integers(0, 1000)) - 1, -1
    for ends_one in data.draw(st.lists(st.booleans(), max_size=60)):
        if unfinished and ends_one:
            tracker.finish(unfinished.pop(data.draw(st.integers(0, len(unfinished) - 1))))
        else:
            last += data.draw(st.integers(1, 5))  # gaps, as after compaction
            tracker.take(last)
            unfinished.append(last)
        # The watermark is the first unfinished offset or the one after the last, and never decreases.
        assert tracker.watermark == (min(unfinished) if unfinished else last + 1)
        assert tracker.watermark >= watermark
        watermark = tracker.watermark
        assert tracker.gap == (last + 1 - min(unfinished) if unfinished else 0)


def test_without_a_job_there_is_nothing_to_commit() -> None:
    assert OffsetTracker().watermark is None
    assert OffsetTracker().gap == 0


def test_a_decreasing_offset_is_refused() -> None:
    tracker = OffsetTracker()
    tracker.take(5)
    with pytest.raises(ValueError, match="offset 5 comes after 5"):
        tracker.take(5)


def test_a_job_can_end_only_once() -> None:
    tracker = OffsetTracker()
    tracker.take(5)
    tracker.finish(5)
    with pytest.raises(KeyError):
        tracker.finish(5)


A, B = ("jobs", 0), ("jobs", 1)


def assignment(*owned: Where, **limits: int) -> Assignment:
    made = Assignment(KafkaSourceConfig(topic="jobs", group="g", **limits))  # type: ignore[arg-type]
    made.assign(owned)
    return made


def take(partitions: Assignment, where: Where, *offsets: int, num_bytes: int = 10) -> list[JobState]:
    topic, number = where
    return [
        partitions.take(Message(topic, number, offset, float(offset), None, bytes(num_bytes)), now_s=100.0)
        for offset in offsets
    ]


def begin_all(partitions: Assignment) -> list[JobState]:
    return list(iter(partitions.begin, None))


def test_jobs_begin_in_fetch_order_and_are_in_flight_until_they_finish() -> None:
    partitions = assignment(A, B)
    jobs = take(partitions, A, 7, 8) + take(partitions, B, 3)
    assert partitions.num_queued == partitions.num_in_flight == 3
    assert partitions.in_flight_bytes == sum(job.message.num_bytes for job in jobs)
    assert begin_all(partitions) == jobs
    assert (partitions.num_queued, partitions.num_in_flight) == (0, 3)
    assert (partitions.num_begun([A]), partitions.num_begun([A, B])) == (2, 3)
    for job in reversed(jobs):
        partitions.finish(job)
    assert (partitions.num_in_flight, partitions.in_flight_bytes, partitions.num_begun([A, B])) == (0, 0, 0)


def test_the_oldest_job_in_flight_is_the_one_fetched_first() -> None:
    partitions = assignment(A)
    seen = [partitions.oldest_timestamp_s]
    take(partitions, A, 5, 6)
    first, _ = begin_all(partitions)
    seen.append(partitions.oldest_timestamp_s)
    partitions.finish(first)
    seen.append(partitions.oldest_timestamp_s)
    assert seen == [None, 5.0, 6.0]


def test_each_watermark_is_committed_once() -> None:
    partitions = assignment(A, B)
    take(partitions, A, 7, 8)
    assert partitions.uncommitted() == {A: 7}
    partitions.note_committed({A: 7})
    assert partitions.uncommitted() == {}
    assert partitions.uncommitted(include_unmoved=True) == {A: 7}
    for job in begin_all(partitions):
        partitions.finish(job)
    assert partitions.uncommitted() == {A: 9}
    assert partitions.watermarks() == {A: 9, B: None}


def test_no_job_begins_during_the_drain_of_a_rebalance() -> None:
    partitions = assignment(A)
    take(partitions, A, 1)
    partitions.draining = True
    assert partitions.begin() is None
    partitions.assign([A])
    assert partitions.begin() is not None


def test_a_partition_that_is_assigned_again_keeps_its_watermark_and_jobs() -> None:
    partitions = assignment(A, B)
    (job,) = take(partitions, A, 1)
    begin_all(partitions)
    take(partitions, A, 2)
    partitions.assign([A])
    partitions.finish(job)
    assert partitions.uncommitted() == {A: 2}
    assert partitions.num_queued == 1


def test_jobs_of_a_revoked_partition_do_not_move_its_watermark() -> None:
    partitions = assignment(A)
    (begun,) = take(partitions, A, 1)
    begin_all(partitions)
    take(partitions, A, 2)
    partitions.assign([B])
    assert (partitions.num_queued, partitions.num_in_flight) == (0, 1), "queued jobs are discarded, begun ones run on"
    partitions.assign([A])
    (again,) = take(partitions, A, 1)
    partitions.finish(begun)
    assert partitions.uncommitted() == {A: 1}
    begin_all(partitions)
    partitions.finish(again)
    assert partitions.uncommitted() == {A: 2}


def test_lost_partitions_are_dropped_and_others_kept() -> None:
    partitions = assignment(A, B)
    take(partitions, A, 1)
    take(partitions, B, 1)
    partitions.draining = True
    partitions.lose([A])
    assert partitions.owned == {B}
    assert [job.message.partition for job in begin_all(partitions)] == [1]


def test_a_topic_that_is_created_again_starts_a_new_epoch() -> None:
    partitions = assignment(A)
    take(partitions, A, 100)
    (old,) = begin_all(partitions)
    (new,) = take(partitions, A, 0)
    assert new.epoch != old.epoch
    partitions.finish(old)
    assert partitions.uncommitted() == {A: 0}
    partitions.restart()
    assert partitions.owned == {A}
    assert partitions.uncommitted() == {}


def test_a_parked_job_is_in_flight_but_does_not_delay_a_rebalance() -> None:
    partitions = assignment(A)
    take(partitions, A, 1)
    (job,) = begin_all(partitions)
    partitions.park(job)
    assert (partitions.num_begun([A]), partitions.num_in_flight) == (0, 1)
    assert partitions.uncommitted() == {A: 1}
    assert partitions.resume(job)
    assert partitions.num_begun([A]) == 1
    partitions.park(job)
    partitions.assign([B])
    assert not partitions.resume(job), "its partition has gone"
    assert (partitions.num_in_flight, partitions.in_flight_bytes) == (0, 0)


def test_a_parked_job_that_is_queued_again_begins_before_the_others() -> None:
    partitions = assignment(A)
    first, second = take(partitions, A, 1, 2)
    assert partitions.begin() is first
    partitions.park(first)
    assert partitions.queue_again(first)
    assert begin_all(partitions) == [first, second]
    assert partitions.num_begun([A]) == 2
    partitions.park(first)
    partitions.assign([B])
    assert not partitions.queue_again(first), "its partition has gone"
    assert partitions.num_in_flight == 1, "the one that had begun is still to finish"


def test_parked_jobs_have_a_limit_of_their_own() -> None:
    partitions = assignment(A, max_in_flight=4)
    for offset in range(4 * WAITING_SHARE):
        take(partitions, A, offset)
        (job,) = begin_all(partitions)
        assert partitions.to_pause([A], [], stopping=False) == set()
        partitions.park(job)
    assert partitions.to_pause([A], [], stopping=False) == {A}
    assert partitions.resume(job)
    assert partitions.to_pause([A], [], stopping=False) == set()


def test_fetching_pauses_at_the_limit_and_resumes_at_half_of_it() -> None:
    partitions = assignment(A, B, max_in_flight=4)
    take(partitions, A, 1, 2, 3)
    assert partitions.to_pause([A, B], [], stopping=False) == set()
    take(partitions, B, 1)
    assert partitions.to_pause([A, B], [], stopping=False) == {A, B}
    jobs = begin_all(partitions)
    partitions.finish(jobs[0])
    assert partitions.to_pause([A, B], [A, B], stopping=False) == {A, B}
    for job in jobs[1:3]:
        partitions.finish(job)
    assert partitions.to_pause([A, B], [A, B], stopping=False) == set()
    assert partitions.to_pause([A, B], [], stopping=True) == {A, B}


def test_bytes_are_limited_like_jobs_and_a_wide_gap_pauses_its_own_partition() -> None:
    heavy = assignment(A, max_in_flight_bytes=5000)
    take(heavy, A, 1, num_bytes=5000)
    assert heavy.to_pause([A], [], stopping=False) == {A}
    gapped = assignment(A, B, max_gap=10)
    take(gapped, A, 1, 11)
    assert gapped.to_pause([A, B], [], stopping=False) == {A}


@given(st.lists(st.tuples(st.sampled_from([A, B]), st.sampled_from(["take", "finish", "assign both", "assign one"]))))
def test_counts_are_right_after_any_sequence_of_events(steps: list[tuple[Where, str]]) -> None:
    partitions = assignment(A, B)
    offsets = {A: 0, B: 0}
    begun: list[JobState] = []
    for where, step in steps:
        if step == "take":
            take(partitions, where, offsets[where])
            offsets[where] += 1
        elif step == "finish":
            begun += begin_all(partitions)
            if begun:
                partitions.finish(begun.pop(0))
        else:
            partitions.assign([A, B] if step == "assign both" else [where])
        assert partitions.num_in_flight == partitions.num_queued + len(begun)
        assert (partitions.num_in_flight == 0) == (partitions.in_flight_bytes == 0)
        assert 0 <= partitions.num_begun([A, B]) <= len(begun)
