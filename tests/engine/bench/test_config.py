from __future__ import annotations

import pytest

from engine.bench.config import FULL, PHONE, QUICK, THUMBNAILS, Workload
from engine.options import NATIVE_PIXELS


def test_quick_measures_the_same_workloads_in_fewer_rounds() -> None:
    assert [workload.name for workload in FULL.workloads] == [workload.name for workload in QUICK.workloads]
    assert FULL.rounds > QUICK.rounds >= 3


def test_phone_photos_are_translated_with_the_defaults_of_convert() -> None:
    assert str(PHONE.options.size) == "auto"
    assert PHONE.options.detail == "guided"
    assert PHONE.width * PHONE.height > NATIVE_PIXELS
    assert PHONE.working_size == (683, 512)


@pytest.mark.parametrize("workload", [*FULL.workloads, *QUICK.workloads], ids=lambda workload: workload.name)
def test_only_phone_photos_change_their_size(workload: Workload) -> None:
    assert (workload.working_size == (workload.width, workload.height)) == (workload.detail == "none")


def test_thumbnails_are_of_the_size_that_the_field_compares_at() -> None:
    assert THUMBNAILS.working_size == (256, 256)
