"""Passing trouble is tried again, at growing and random intervals; lasting trouble is told."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from engine.system.retry import ATTEMPTS, pauses_s, retried


@pytest.fixture
def slept_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the pauses that would have been made."""
    slept: list[float] = []
    monkeypatch.setattr("engine.system.retry.time.sleep", slept.append)
    return slept


def failing(times: int, error: Exception) -> Callable[[], str]:
    """Make work that fails so often before it is done."""
    left = iter([error] * times)

    def work() -> str:
        for trouble in left:
            raise trouble
        return "done"

    return work


def test_pauses_double_up_to_the_longest_and_none_is_cut_by_more_than_half() -> None:
    full_s = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    for pause_s, longest_s in zip(itertools.islice(pauses_s(0.1, 1.0), 6), full_s, strict=True):
        assert longest_s / 2 <= pause_s <= longest_s


def test_two_workers_do_not_try_at_the_same_moments() -> None:
    assert list(itertools.islice(pauses_s(), 10)) != list(itertools.islice(pauses_s(), 10))


@pytest.mark.parametrize("times", range(ATTEMPTS))
def test_what_passes_in_time_is_done(times: int, slept_s: list[float]) -> None:
    heard: list[Exception] = []
    assert retried(failing(times, OSError("away")), OSError, heard.append) == "done"
    assert len(heard) == len(slept_s) == times


def test_what_does_not_pass_is_raised_in_the_end(slept_s: list[float]) -> None:
    heard: list[Exception] = []
    with pytest.raises(OSError, match="away"):
        retried(failing(ATTEMPTS, OSError("away")), OSError, heard.append)
    assert len(heard) == len(slept_s) == ATTEMPTS - 1


def test_other_errors_are_not_tried_again(slept_s: list[float]) -> None:
    heard: list[Exception] = []
    with pytest.raises(ValueError, match="wrong"):
        retried(failing(1, ValueError("wrong")), OSError, heard.append)
    assert not heard
    assert not slept_s
