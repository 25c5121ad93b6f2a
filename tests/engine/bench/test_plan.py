from __future__ import annotations

import math
from dataclasses import replace

import pytest

from engine.bench.document import Document
from engine.bench.plan import DAY_S, Load, estimate_archive, plan, worker_rate
from engine.errors import SetupError
from engine.options import Size

LOAD = Load(images_per_day=10_000_000, size=Size.parse("48"))


def test_the_rate_of_a_worker_lies_below_that_of_its_generator(document: Document) -> None:
    generator = {row["side"]: row["images_per_s"]["median"] for row in document["generator"]["by_side"]}
    assert 0 < worker_rate(document, 32 * 32) <= 1.001 * generator[32]
    assert 0 < worker_rate(document, 64 * 64) <= 1.001 * generator[64]


def test_a_rate_between_two_measured_sizes_lies_between_theirs(document: Document) -> None:
    pixels = [worker_rate(document, side * side) * side * side for side in (32, 48, 64)]
    assert min(pixels[0], pixels[2]) <= 1.001 * pixels[1]
    assert pixels[1] <= 1.001 * max(pixels[0], pixels[2])


def test_workers_carry_the_peak_with_their_share_in_reserve(document: Document) -> None:
    made = plan(LOAD, document)
    capacity = made.workers_at_peak * made.images_per_s_per_worker * LOAD.utilisation
    assert made.mean_images_per_s == pytest.approx(LOAD.images_per_day / DAY_S)
    assert made.peak_images_per_s <= capacity
    assert capacity - made.images_per_s_per_worker * LOAD.utilisation < made.peak_images_per_s
    assert made.partitions >= 2 * made.workers_at_peak
    assert made.workers_at_mean <= made.workers_at_peak


def test_the_lag_threshold_is_what_one_worker_does_in_the_catch_up_time(document: Document) -> None:
    made = plan(replace(LOAD, catch_up_s=120.0), document)
    assert made.lag_threshold == max(1, round(120.0 * made.images_per_s_per_worker))


def test_twice_the_load_needs_twice_the_workers(document: Document) -> None:
    one, two = plan(LOAD, document), plan(replace(LOAD, images_per_day=2 * LOAD.images_per_day), document)
    assert abs(two.workers_at_peak - 2 * one.workers_at_peak) <= 1


def test_the_values_fit_the_chart(document: Document) -> None:
    values = plan(LOAD, document).values
    assert values["keda"]["maxReplicas"] == values["kafka"]["createTopics"]
    assert 1 <= values["keda"]["minReplicas"] <= values["keda"]["maxReplicas"]
    assert values["resources"]["limits"]["memory"].endswith("Mi")
    assert math.isfinite(values["keda"]["lagThreshold"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"size": Size.parse("native")}, "native sizes vary"),
        ({"size": Size.parse("4000")}, "no size near 16.00 megapixels"),
        ({"images_per_day": 0}, "at least 1"),
    ],
)
def test_a_load_that_cannot_be_planned_is_refused_in_a_sentence(
    document: Document, change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(SetupError, match=sentence):
        plan(replace(LOAD, **change), document)  # type: ignore[arg-type]


def test_an_archive_takes_hours_in_proportion_to_its_photos_and_machines_in_whole_numbers() -> None:
    one, ten = estimate_archive(10**6, 100.0, 1.0), estimate_archive(10**7, 100.0, 1.0)
    assert one.machine_hours == pytest.approx(10**6 / 90 / 3600)
    assert ten.machine_hours == pytest.approx(10 * one.machine_hours)
    assert (one.machines, ten.machines) == (1, 2)
    assert one.requests == 2 * 10**6 + 2 * 1000
    assert estimate_archive(10**7, 100.0, 0.5).machines == 3
