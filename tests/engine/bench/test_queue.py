from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from kafka import KafkaAdminClient

from engine.bench.document import schema
from engine.bench.photos import find_scenes
from engine.bench.queue import invert, measure_queue
from engine.config import DecodeConfig, EncodeConfig, PipelineConfig, StoreConfig
from engine.errors import SetupError
from tests.engine.bench.conftest import TINY
from tests.stream.brokers import noida


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[str]:
    with noida(tmp_path / "data") as address:
        yield address


SMALL = PipelineConfig(decode=DecodeConfig(workers=1), encode=EncodeConfig(workers=1), store=StoreConfig(workers=1))


def test_the_queue_is_measured_on_topics_that_are_gone_afterwards(brokers: str, model_file: Path) -> None:
    result = measure_queue(brokers, model_file, find_scenes(), SMALL, TINY)

    assert set(schema()["properties"]["queue"]["anyOf"][1]["required"]) == set(result)
    assert min(result["jobs_per_s"]["values"]) > 0
    assert result["worker_cpu_ms_per_job"] > 0
    assert result["worker_peak_bytes"] > 50_000_000
    assert result["half_load_p99_ms"]["median"] >= result["half_load_median_ms"]["median"] > 0
    admin = KafkaAdminClient(bootstrap_servers=brokers)
    assert [topic for topic in admin.list_topics() if topic.startswith("solstice-bench")] == []
    admin.close()


def test_brokers_that_cannot_be_reached_are_refused(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.stream.connection.BOOTSTRAP_S", 1.0)

    with pytest.raises(SetupError, match=r"127\.0\.0\.1:1"):
        measure_queue("127.0.0.1:1", model_file, find_scenes(), SMALL, TINY)


def test_the_stand_in_for_the_generator_inverts_pixels() -> None:
    pixels = torch.randint(0, 256, (1, 4, 4, 3), dtype=torch.uint8)

    assert torch.equal(invert(pixels).int(), 255 - pixels.int())
