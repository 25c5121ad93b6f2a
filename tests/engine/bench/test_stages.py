from __future__ import annotations

from engine.bench.document import Document
from engine.bench.stages import CEILINGS


def test_every_stage_of_a_guided_workload_is_measured_with_its_ceiling(measured: Document) -> None:
    (workload,) = measured["workloads"]
    stages = {stage["stage"]: stage for stage in workload["stages"]}

    assert list(stages) == ["inspect", "decode", "generate", "restore", "encode", "store"]
    for name, stage in stages.items():
        assert stage["ceiling"] == CEILINGS.get(name)
        assert (stage["share_of_ceiling"] is None) == (name == "inspect")
        assert min(stage["images_per_s"]["values"]) > 0


def test_megapixels_count_those_of_the_photo(measured: Document) -> None:
    (workload,) = measured["workloads"]
    stage = workload["stages"][1]
    megapixels = workload["width"] * workload["height"] / 1e6

    assert abs(stage["mp_per_s"]["median"] / stage["images_per_s"]["median"] - megapixels) < 1e-3 * megapixels
