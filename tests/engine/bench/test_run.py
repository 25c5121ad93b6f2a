from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.bench.config import BenchConfig
from engine.bench.document import Document
from engine.bench.run import judge_noise, measure, random_model
from engine.config import GenerateConfig
from engine.errors import SetupError


def spread(*values: float) -> dict[str, object]:
    return {"median": sorted(values)[len(values) // 2], "min": min(values), "max": max(values), "values": list(values)}


def test_the_document_names_what_was_measured(measured: Document) -> None:
    settings = measured["settings"]

    assert settings["network"] == {"blocks": 9, "ngf": 4, "upsample": "transpose"}
    assert (settings["backend"], settings["precision"]) == ("eager", "fp32")
    assert settings["photos"] == "samples"
    assert settings["rounds"] == 2
    assert settings["quick"] is False
    assert measured["queue"] is None


def test_one_kind_of_matrix_product_is_measured_where_there_is_one_precision(measured: Document) -> None:
    assert "matrix_fp32_tflops" in measured["ceilings"]
    assert "matrix_tflops" not in measured["ceilings"]


def test_every_measurement_has_one_value_per_round(measured: Document) -> None:
    assert {len(one["values"]) for one in measured["ceilings"].values()} == {2}
    assert {len(one["images_per_s"]["values"]) for one in measured["generator"]["by_batch"]} == {2}


def test_random_weights_are_the_same_in_every_run_and_leave_the_generator_of_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)

    first = random_model(tmp_path, 4).read_bytes()

    assert torch.equal(torch.rand(1), expected)
    assert random_model(tmp_path, 4).read_bytes() == first


@pytest.mark.parametrize(
    ("other_cores", "values", "trusted"),
    [
        (0.0, (1.0, 1.05), True),
        (None, (1.0, 1.05), True),
        (1.5, (1.0, 1.05), False),
        (0.0, (1.0, 2.0), False),
    ],
)
def test_a_run_beside_other_work_or_of_scattered_values_is_not_trusted(
    other_cores: float | None, values: tuple[float, ...], trusted: bool
) -> None:
    noise = judge_noise({"machine": {"cores": 2}, "ceilings": [{"copy": spread(*values)}]}, other_cores)

    assert noise["trusted"] is trusted
    assert (noise["reasons"] == []) is trusted


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (BenchConfig(model="no-such-model"), "no model named no-such-model"),
        (BenchConfig(generate=GenerateConfig(device="tpu")), "--device"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(config: BenchConfig, reason: str) -> None:
    with pytest.raises(SetupError, match=reason):
        measure(config)
