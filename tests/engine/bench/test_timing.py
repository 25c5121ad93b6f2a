from __future__ import annotations

import threading
import time

import pytest

from engine.bench.timing import Spread, alternate, rate


def test_a_spread_keeps_its_values_through_a_document() -> None:
    spread = Spread((3.0, 1.0, 2.0))

    document = spread.to_document()

    assert document == {"median": 2.0, "min": 1.0, "max": 3.0, "values": [3.0, 1.0, 2.0]}
    assert Spread.from_document(document) == spread


def test_documents_hold_five_significant_digits() -> None:
    assert Spread((123456.789,)).to_document()["values"] == [123460.0]
    assert Spread((0.000123456,)).to_document()["values"] == [0.00012346]


@pytest.mark.parametrize(("values", "noisy"), [((1.0, 1.19), False), ((1.0, 1.3), True), ((1.0,), False)])
def test_values_that_span_more_than_a_fifth_of_their_median_are_noisy(values: tuple[float, ...], noisy: bool) -> None:
    assert Spread(values).noisy is noisy


def test_spreads_are_divided_round_by_round() -> None:
    """A machine twice as slow in one round halves both sides, and leaves their ratio alone."""
    assert Spread((10.0, 5.0)).over(Spread((20.0, 10.0))) == Spread((0.5, 0.5))


def test_a_measurement_without_values_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        Spread(())


def test_alternate_takes_everything_in_turn_and_does_not_count_the_first_round() -> None:
    calls: list[str] = []
    counts = {"a": iter(range(10)), "b": iter(range(100, 110))}

    def measure(name: str) -> float:
        calls.append(name)
        return float(next(counts[name]))

    spreads = alternate({"a": lambda: measure("a"), "b": lambda: measure("b")}, rounds=2)

    assert calls == ["a", "b"] * 3
    assert spreads == {"a": Spread((1.0, 2.0)), "b": Spread((101.0, 102.0))}


def test_rate_passes_over_all_items_at_least_once_and_raises_what_the_work_raises() -> None:
    seen: list[int] = []

    assert rate(seen.append, [1, 2, 3], threads=1, measured_s=0.0) > 0
    assert seen == [1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        rate(lambda item: 1 / item, [0], threads=1, measured_s=0.0)


def test_rate_runs_items_at_the_same_time_in_as_many_threads_as_it_is_given() -> None:
    together = threading.Barrier(3)

    assert rate(lambda _: together.wait(timeout=20), [0, 1, 2], threads=3, measured_s=0.0) > 0


def test_rate_counts_items_per_second() -> None:
    assert rate(lambda _: time.sleep(0.02), [None], threads=1, measured_s=0.1) <= 50
