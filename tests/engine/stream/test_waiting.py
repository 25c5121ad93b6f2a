"""Jobs wait while their input root does not answer."""

from __future__ import annotations

import pytest

from engine.errors import SkipImage
from engine.observe.health import Health
from engine.observe.metrics import NoMetrics
from engine.stream.inputs import SourceUnavailable
from engine.stream.jobs import JobState, Message
from engine.stream.waiting import FIRST_PAUSE_S, LONGEST_PAUSE_S, WaitingJobs


class Bench:
    """Waiting jobs with a simulated clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.health = Health()
        self.jobs = WaitingJobs(NoMetrics(), self.health, clock=lambda: self.now_s)

    def fail(self, job: JobState, root: int = 0) -> None:
        self.jobs.add(job, SourceUnavailable("connection refused", root))

    def next_due(self) -> JobState:
        """Advance the clock to the next due job and take it."""
        due_in = self.jobs.due_in()
        assert due_in is not None
        self.now_s += due_in + 1e-6
        job = self.jobs.take_due()
        assert job is not None
        return job


def job(offset: int = 0) -> JobState:
    return JobState(message=Message("jobs", 0, offset, 0.0, None, b""), epoch=1, id=str(offset), wait_s=0.0)


def test_pauses_grow_up_to_a_limit_and_jobs_wait_until_the_root_answers() -> None:
    bench, one = Bench(), job()
    pauses_s = []
    for _ in range(40):
        bench.fail(one)
        pauses_s.append(bench.jobs.due_in() or 0.0)
        assert bench.jobs.take_due() is None
        assert bench.next_due() is one
    assert FIRST_PAUSE_S / 2 <= pauses_s[0] <= FIRST_PAUSE_S
    assert LONGEST_PAUSE_S / 2 <= max(pauses_s) <= LONGEST_PAUSE_S
    assert pauses_s[5] > pauses_s[0]
    assert one.attempts == 41


def test_readiness_names_the_unavailable_root_until_it_answers_again() -> None:
    bench, one, other = Bench(), job(1), job(2)
    bench.fail(one, root=2)
    bench.fail(other, root=2)
    assert bench.health.missing() == ["source"]
    assert bench.health.reasons() == {"source": "input root 2 does not answer: connection refused, 0 s"}
    bench.jobs.served(bench.next_due(), 2)
    assert bench.health.missing() == ["source"], "one job still waits"
    bench.jobs.served(bench.next_due(), 2)
    assert (bench.health.missing(), bench.health.reasons()) == ([], {})


def test_when_a_root_answers_again_its_other_jobs_are_tried_soon() -> None:
    bench = Bench()
    one, other = job(1), job(2)
    for _ in range(8):
        bench.fail(one)
        bench.next_due()
    bench.fail(other)
    bench.jobs.take_due()
    first = bench.next_due()
    bench.fail(one)
    bench.jobs.served(first, 0)
    due_in = bench.jobs.due_in()
    assert due_in is not None
    assert due_in <= FIRST_PAUSE_S


def test_an_image_that_a_root_refuses_while_it_serves_others_fails() -> None:
    bench, refused = Bench(), job()
    for offset in range(1, 5):
        bench.fail(refused)
        assert bench.next_due() is refused
        bench.jobs.served(job(offset), 0)
        bench.now_s += 0.01
    with pytest.raises(SkipImage, match="source cannot be read after 5 attempts: connection refused"):
        bench.fail(refused)
    assert bench.health.missing() == []


def test_one_root_that_answers_does_not_affect_another() -> None:
    bench, one = Bench(), job()
    for offset in range(1, 20):
        bench.fail(one, root=0)
        bench.jobs.served(job(offset), 1)
        bench.next_due()
    assert bench.health.missing() == ["source"]


def test_a_dropped_job_stops_waiting() -> None:
    bench, one = Bench(), job()
    bench.fail(one)
    bench.jobs.drop(bench.next_due())
    assert bench.health.missing() == []
    assert bench.jobs.due_in() is None
