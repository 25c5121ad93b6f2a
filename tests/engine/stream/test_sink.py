from __future__ import annotations

import pytest

from engine.errors import StopRun
from engine.stream.config import DeadLetterLimit
from engine.stream.sink import DeadLetterGuard


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
