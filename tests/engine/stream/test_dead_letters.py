"""Limit on failed jobs, which is kept across restarts of workers."""

from __future__ import annotations

import pytest

from engine.errors import SetupError, StopRun
from engine.stream.config import DeadLetterLimit
from engine.stream.dead_letters import DeadLetterGuard


def test_consecutive_failures_stop_the_worker_and_a_success_resets_their_number() -> None:
    guard = DeadLetterGuard(DeadLetterLimit(consecutive=3))
    for failed in [True, True, True, False, True, True, True]:
        guard.saw(failed)
    with pytest.raises(StopRun, match="4 jobs in a row"):
        guard.saw(failed=True)


def test_too_large_a_share_of_failures_stops_the_worker() -> None:
    guard = DeadLetterGuard(DeadLetterLimit(consecutive=100, ratio=0.5, window=10))
    for _ in range(50):
        guard.saw(failed=True)
        guard.saw(failed=False)
    guard.saw(failed=True)  # replaces another failure
    with pytest.raises(StopRun, match="6 of the last 10"):
        guard.saw(failed=True)


def test_a_restarted_worker_continues_the_count() -> None:
    first, second = (DeadLetterGuard(DeadLetterLimit(consecutive=3)) for _ in range(2))
    first.saw(failed=True)
    first.saw(failed=True)
    second.restore([first.remember()])
    second.saw(failed=True)
    with pytest.raises(StopRun, match="4 jobs in a row"):
        second.saw(failed=True)


def test_a_restart_after_the_limit_is_refused_with_the_reason_and_the_remedy() -> None:
    first, second = (DeadLetterGuard(DeadLetterLimit(consecutive=1)) for _ in range(2))
    first.saw(failed=True)
    with pytest.raises(StopRun):
        first.saw(failed=True)
    with pytest.raises(SetupError, match=r"2 jobs in a row failed.*--reset-dead-letter-limit"):
        second.restore([first.remember()])


def test_a_share_over_the_limit_is_kept_across_restarts() -> None:
    limit = DeadLetterLimit(consecutive=100, ratio=0.5, window=4)
    first, second = DeadLetterGuard(limit), DeadLetterGuard(limit)
    for failed in (True, False, True):
        first.saw(failed)
    with pytest.raises(StopRun):
        first.saw(failed=True)
    with pytest.raises(SetupError, match="3 of the last 4"):
        second.restore([first.remember()])


def test_the_newest_stored_count_is_used_and_invalid_ones_are_ignored() -> None:
    guard = DeadLetterGuard(DeadLetterLimit(consecutive=10))
    old = '{"consecutive":50,"failed":50,"of":50,"at":1.0}'
    new = '{"consecutive":0,"failed":0,"of":5,"at":2.0}'
    guard.restore(["", "not json", "[1]", "{}", '{"consecutive":"x"}', old, new])
    guard.saw(failed=True)
    with pytest.raises(SetupError):
        guard.restore([old])
