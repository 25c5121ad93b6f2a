"""`solstice results` reports when no results arrive."""

from __future__ import annotations

from engine.cli.results import SilenceNotice


def test_silence_is_reported_once_a_minute_with_the_number_of_missing_results() -> None:
    notice = SilenceNotice(expect=8)
    lines = {now: notice.due(now, 0.0, 0) for now in (0.0, 30.0, 59.9, 60.1, 61.0, 119.0, 120.5)}
    assert {now: line for now, line in lines.items() if line} == {
        60.1: "No result for 60 s; 8 missing.",
        120.5: "No result for 120 s; 8 missing.",
    }


def test_a_result_restarts_the_interval() -> None:
    notice = SilenceNotice(expect=8)
    assert notice.due(70.0, 0.0, 0) is not None
    assert notice.due(75.0, 70.0, 3) is None
    assert notice.due(131.0, 70.0, 3) == "No result for 60 s; 5 missing."


def test_without_an_expected_number_no_missing_results_are_reported() -> None:
    assert SilenceNotice(expect=None).due(61.0, 0.0, 5) == "No result for 60 s."
