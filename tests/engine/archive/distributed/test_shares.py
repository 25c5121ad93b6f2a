"""Shares of inputs for workers that may die."""

from __future__ import annotations

import random
from collections import Counter

from engine.archive.distributed.shares import MAX_DEATHS, MAX_UNDER_WAY, MIN_UNDER_WAY, Shares
from engine.archive.plan import PlannedInput
from engine.listing import Input


def inputs(number: int) -> list[PlannedInput]:
    return [PlannedInput(Input(key=f"{i}.png", identity="1"), f"{i}.jpg", "jpeg") for i in range(number)]


def names(given: list[PlannedInput]) -> list[str]:
    return [planned.output for planned in given]


def test_inputs_are_given_once_in_order_and_in_shares_that_get_smaller() -> None:
    planned = inputs(3000)
    shares = Shares(planned, 2)
    given: list[str] = []
    sizes: list[int] = []
    while not shares.finished:
        for worker in (0, 1):
            share = names(shares.give(worker))
            sizes += [len(share)] if share else []
            given += share
            for output in share:
                assert shares.ended(worker, output)
    assert given == names(planned)
    assert sizes[0] == MAX_UNDER_WAY
    assert max(sizes[-4:]) <= MIN_UNDER_WAY
    assert shares.give(0) == []


def test_a_worker_gets_more_when_half_of_its_share_has_ended() -> None:
    shares = Shares(inputs(1000), 1)
    first = names(shares.give(0))
    for output in first[: len(first) // 2 - 1]:
        shares.ended(0, output)
    assert shares.give(0) == []
    shares.ended(0, first[-1])
    assert shares.give(0) != []


def test_inputs_of_a_dead_worker_go_to_the_next_one_first() -> None:
    shares = Shares(inputs(40), 2)
    first, second = names(shares.give(0)), names(shares.give(1))
    shares.ended(0, first[0])
    assert shares.died(0) == []
    assert not shares.ended(0, first[1]), "it is not the dead worker's any more"
    again = names(shares.give(2))
    assert again == first[1 : len(again) + 1]
    assert not set(again) & set(second)


def test_only_the_inputs_that_kill_have_failed_in_the_end() -> None:
    """Whatever the order of deaths: 200 inputs, of which three kill every worker that reads them."""
    killers = {"7.jpg", "11.jpg", "150.jpg"}
    for seed in range(10):
        generator = random.Random(seed)
        shares = Shares(inputs(200), 3)
        has: dict[int, list[str]] = {0: [], 1: [], 2: []}
        ended: Counter[str] = Counter()
        failed: list[str] = []
        deaths = 0
        while not shares.finished:
            worker = generator.choice(list(has))
            has[worker] += names(shares.give(worker))
            if not has[worker]:
                continue
            output = has[worker].pop(generator.randrange(len(has[worker])))
            if output not in killers:
                ended[output] += shares.ended(worker, output)
                continue
            failed += names(shares.died(worker))
            deaths += 1
            del has[worker]
            has[max([*has, worker]) + 1 + deaths] = []
        assert set(failed) == killers
        assert set(ended) == {f"{i}.jpg" for i in range(200)} - killers
        assert set(ended.values()) == {1}
        assert deaths <= MAX_DEATHS * len(killers)
