"""Retry temporary failures after growing random pauses; raise the last error in the end."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from engine.system.retry import ATTEMPTS, pauses_s, retried


@pytest.fixture
def slept_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace pauses, and return a list that collects their lengths."""
    slept: list[float] = []
    monkeypatch.setattr("engine.system.retry.time.sleep", slept.append)
    return slept


def failing(times: int, error: Exception) -> Callable[[], str]:
    """Return a function that fails a number of times before it succeeds."""
    left = iter([error] * times)

    def work() -> str:
        for trouble in left:
            raise trouble
        return "done"

    return work


def test_pauses_double_up_to_the_longest_and_are_shortened_by_at_most_half() -> None:
    full_s = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    for pause_s, longest_s in zip(itertools.islice(pauses_s(0.1, 1.0), 6), full_s, strict=True):
        assert longest_s / 2 <= pause_s <= longest_s


def test_two_workers_have_different_pauses() -> None:
    assert list(itertools.islice(pauses_s(), 10)) != list(itertools.islice(pauses_s(), 10))


@pytest.mark.parametrize("times", range(ATTEMPTS))
def test_a_call_that_succeeds_in_time_returns_its_result(times: int, slept_s: list[float]) -> None:
    errors: list[Exception] = []
    assert retried(failing(times, OSError("away")), OSError, errors.append) == "done"
    assert len(errors) == len(slept_s) == times


def test_the_error_of_the_last_attempt_is_raised(slept_s: list[float]) -> None:
    errors: list[Exception] = []
    with pytest.raises(OSError, match="away"):
        retried(failing(ATTEMPTS, OSError("away")), OSError, errors.append)
    assert len(errors) == len(slept_s) == ATTEMPTS - 1


def test_other_errors_are_not_retried(slept_s: list[float]) -> None:
    errors: list[Exception] = []
    with pytest.raises(ValueError, match="wrong"):
        retried(failing(1, ValueError("wrong")), OSError, errors.append)
    assert not errors
    assert not slept_s
