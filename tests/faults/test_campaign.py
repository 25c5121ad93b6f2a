"""The campaign of `make faults` in a short form, with fixed seeds."""

from __future__ import annotations

import random

import pytest

from tests.faults.campaign import Broken, archive, mutant, mutants, require


def test_mutants_of_images_and_models_crash_nothing() -> None:
    counts = mutants(seed=1, count=250)
    assert counts.total() == 250
    assert counts["images refused"] > 50
    assert counts["models refused"] > 10


def test_an_archive_that_is_killed_ends_like_one_that_is_not() -> None:
    counts = archive(seed=1, kills=2, photos=20)
    assert counts["kills"] == 2
    assert counts["photos compared"] > 15


def test_a_seed_makes_the_same_mutants() -> None:
    data = bytes(range(256)) * 4
    assert [mutant(random.Random(7), data) for _ in range(2)] == [mutant(random.Random(7), data)] * 2
    assert mutant(random.Random(7), data) != mutant(random.Random(8), data)


def test_what_is_broken_is_told() -> None:
    with pytest.raises(Broken, match="lost"):
        require(set(), "lost: 1")
