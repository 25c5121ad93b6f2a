"""Measurements of any thread are added up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.observe.metrics import NoMetrics, Tally, timed


def test_a_tally_adds_up_reports_of_many_threads() -> None:
    tally = Tally()

    def report(i: int) -> None:
        tally.stage("decode", 0.5, 2)
        tally.outcome("decode" if i % 4 == 0 else None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(report, range(400)))
    assert (tally.stage_seconds["decode"], tally.stage_images["decode"]) == (200.0, 800)
    assert (tally.converted, tally.failed) == (300, 100)


def test_a_call_that_fails_is_timed_too() -> None:
    tally = Tally()
    with pytest.raises(ZeroDivisionError), timed(tally, "encode", 3):
        raise ZeroDivisionError
    assert tally.stage_images == {"encode": 3}
    assert tally.stage_seconds["encode"] > 0


def test_the_default_accepts_and_ignores_every_measurement() -> None:
    silent = NoMetrics()
    silent.stage("read", 1.0, 1)
    silent.outcome(None)
    with timed(silent, "store", 1):
        pass
