"""The limit on failed jobs, and what the next worker of the group remembers of it."""

from __future__ import annotations

import pytest

from engine.errors import SetupError, StopRun
from engine.stream.config import DeadLetterLimit
from engine.stream.dead_letters import DeadLetterGuard


def test_failures_in_a_row_stop_and_a_success_between_them_does_not() -> None:
    guard = DeadLetterGuard(DeadLetterLimit(consecutive=3))
    for failed in [True, True, True, False, True, True, True]:
        guard.saw(failed)
    with pytest.raises(StopRun, match="4 jobs in a row"):
        guard.saw(failed=True)


def test_too_large_a_share_of_the_last_jobs_stops() -> None:
    guard = DeadLetterGuard(DeadLetterLimit(consecutive=100, ratio=0.5, window=10))
    for _ in range(50):
        guard.saw(failed=True)
        guard.saw(failed=False)
    guard.saw(failed=True)  # takes the place of another failure
    with pytest.raises(StopRun, match="6 of the last 10"):
        guard.saw(failed=True)


def test_a_restart_continues_the_count() -> None:
    first, second = (DeadLetterGuard(DeadLetterLimit(consecutive=3)) for _ in range(2))
    first.saw(failed=True)
    first.saw(failed=True)
    second.restore([first.remember()])
    second.saw(failed=True)
    with pytest.raises(StopRun, match="4 jobs in a row"):
        second.saw(failed=True)


def test_a_restart_after_the_limit_is_refused_with_the_reason_and_the_way_out() -> None:
    first, second = (DeadLetterGuard(DeadLetterLimit(consecutive=1)) for _ in range(2))
    first.saw(failed=True)
    with pytest.raises(StopRun):
        first.saw(failed=True)
    with pytest.raises(SetupError, match=r"2 jobs in a row failed.*--reset-dead-letter-limit"):
        second.restore([first.remember()])


def test_a_share_over_the_limit_is_remembered() -> None:
    limit = DeadLetterLimit(consecutive=100, ratio=0.5, window=4)
    first, second = DeadLetterGuard(limit), DeadLetterGuard(limit)
    for failed in (True, False, True):
        first.saw(failed)
    with pytest.raises(StopRun):
        first.saw(failed=True)
    with pytest.raises(SetupError, match="3 of the last 4"):
        second.restore([first.remember()])


def test_the_newest_note_counts_and_notes_of_others_are_ignored() -> None:
    guard = DeadLetterGuard(DeadLetterLimit(consecutive=10))
    old = '{"consecutive":50,"failed":50,"of":50,"at":1.0}'
    new = '{"consecutive":0,"failed":0,"of":5,"at":2.0}'
    guard.restore(["", "not json", "[1]", "{}", '{"consecutive":"x"}', old, new])
    guard.saw(failed=True)
    with pytest.raises(SetupError):
        guard.restore([old])
