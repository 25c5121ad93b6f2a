"""Measurements add up, from any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.observe.metrics import NoMetrics, Tally, timed


def test_a_tally_adds_up_what_many_threads_report() -> None:
    tally = Tally()

    def report(i: int) -> None:
        tally.stage("decode", 0.5, 2)
        tally.outcome("decode" if i % 4 == 0 else None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(report, range(400)))
    assert (tally.stage_seconds["decode"], tally.stage_images["decode"]) == (200.0, 800)
    assert (tally.converted, tally.failed) == (300, 100)


def test_a_call_that_fails_is_timed_all_the_same() -> None:
    tally = Tally()
    with pytest.raises(ZeroDivisionError), timed(tally, "encode", 3):
        raise ZeroDivisionError
    assert tally.stage_images == {"encode": 3}
    assert tally.stage_seconds["encode"] > 0


def test_the_silent_default_takes_everything() -> None:
    silent = NoMetrics()
    silent.stage("read", 1.0, 1)
    silent.outcome(None)
    with timed(silent, "store", 1):
        pass
