"""The campaign of `make faults` in a short form, with fixed seeds."""

from __future__ import annotations

import random

import pytest

from tests.faults.campaign import record
from tests.faults.campaign.archive import archive
from tests.faults.campaign.checks import Broken, Counts, require
from tests.faults.campaign.mutants import mutant, mutants
from tests.faults.campaign.stream import OTHERS, plan, stream


def test_mutants_of_images_and_models_crash_nothing() -> None:
    counts = mutants(seed=1, count=250)
    assert counts.total() == 250
    assert counts["images refused"] > 50
    assert counts["models refused"] > 10


def test_an_archive_that_is_killed_ends_like_one_that_is_not() -> None:
    counts = archive(seed=1, kills=2, photos=20, disks=0)
    assert counts["kills"] == 2
    assert counts["photos compared each time"] == 20


def test_a_stream_loses_nothing_to_kills_and_a_broker_that_restarts() -> None:
    counts = stream(seed=1, jobs=120, kills=2, stops=0, others=("broker",), workers=2, pills=0)
    assert counts["SIGKILLs"] == 2
    assert counts["brokers killed and started again"] == 1
    assert counts["good jobs stored"] > 110


def test_a_seed_makes_the_same_mutants() -> None:
    data = bytes(range(256)) * 4
    assert [mutant(random.Random(7), data) for _ in range(2)] == [mutant(random.Random(7), data)] * 2
    assert mutant(random.Random(7), data) != mutant(random.Random(8), data)


def test_a_seed_makes_the_same_faults_in_the_same_order() -> None:
    faults = [plan(random.Random(seed), 30, 5, OTHERS, workers=3) for seed in (7, 7, 8)]
    assert faults[0] == faults[1] != faults[2]
    assert Counts(fault.kind for fault in faults[0]) == {
        **{"SIGKILL": 30, "SIGSTOP": 5},
        **{"broker": 1, "full sink": 1, "read-only sink": 1, "source away": 1},
    }


def test_broken_promises_are_reported() -> None:
    with pytest.raises(Broken, match="lost"):
        require(set(), "lost: 1")


def test_figures_of_a_campaign_are_quoted_between_their_marks() -> None:
    campaign = record.document("python -m tests.faults.campaign", 7)
    record.add(campaign, "archive", "held", 12.4, Counts({"kills": 1000}))
    page = record.PAGE.read_text()
    quoted = record.quote(campaign, page)
    assert "| archive, 12 s | held | 1,000 kills |" in quoted
    assert record.quote(campaign, quoted) == quoted
    assert quoted.split(record.BEGIN)[0] == page.split(record.BEGIN)[0]
    assert quoted.split(record.END)[1] == page.split(record.END)[1]
