"""`solstice.ray.Translate` in `map_batches` of a real Ray dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import GenerateConfig, PipelineConfig
from solstice.ray import Translate
from tests.images import photo

pytestmark = [pytest.mark.needs_ray, pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")]


def test_a_dataset_of_files_is_translated_by_an_actor(model_file: Path, tmp_path: Path, ray_address: str) -> None:
    import ray.data

    for i in range(6):
        (tmp_path / f"{i}.jpg").write_bytes(photo(48, 32, i) if i != 3 else b"no image")
    photos = ray.data.read_binary_files(str(tmp_path), include_paths=True)
    winter = photos.map_batches(
        Translate,
        fn_constructor_kwargs={
            "model": model_file,
            "column": "bytes",
            "size": "native",
            "config": PipelineConfig(generate=GenerateConfig(backend="eager", device="cpu")),
        },
        batch_size=4,
        concurrency=1,
        num_cpus=1,
    )
    rows = {Path(row["path"]).name: row for row in winter.take_all()}
    assert sorted(rows) == [f"{i}.jpg" for i in range(6)]
    assert [name for name, row in rows.items() if row["error"]] == ["3.jpg"]
    assert rows["3.jpg"]["translated"] == b""
    assert all(row["translated"].startswith(b"\xff\xd8") for name, row in rows.items() if name != "3.jpg")
    assert all(row["bytes"] == (tmp_path / name).read_bytes() for name, row in rows.items())
