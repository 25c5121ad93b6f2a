"""Model cache: a bounded number of generators in memory, and a second try for a batch that fails."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.config import GenerateConfig
from engine.errors import SetupError, SkipImage
from engine.model.weights import Generator, load_generator
from engine.observe.metrics import NoMetrics
from engine.stream import models as module
from engine.stream.models import ModelCache, RetryOnce
from tests.stream.stream import tiny_model

CPU = GenerateConfig(backend="eager", device="cpu")
GREY_NHWC = torch.full((1, 32, 32, 3), 128, dtype=torch.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the files of three models by name."""
    folder = tmp_path_factory.mktemp("models")
    return {name: tiny_model(folder / f"{name}.safetensors", seed) for seed, name in enumerate("abc")}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that collects the names of models as they are loaded."""
    names: list[str] = []

    def note(path: Path) -> Generator:
        names.append(path.stem)
        return load_generator(path)

    monkeypatch.setattr(module, "load_generator", note)
    return names


def test_the_least_recently_used_model_is_removed(files: dict[str, Path], loaded: list[str]) -> None:
    models = ModelCache(files, CPU, room=2)
    assert loaded == ["a"], "the default is ready before the first job"
    for name in "abacab":
        assert models[name](GREY_NHWC).shape == GREY_NHWC.shape
    assert loaded == ["a", "b", "c", "b"]


def test_each_name_has_its_own_weights_and_hash(files: dict[str, Path]) -> None:
    models = ModelCache(files, CPU, room=1)
    results = {models[name](GREY_NHWC).numpy().tobytes() for name in models}
    assert len(results) == len(models) == 3
    assert models.sha256 == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def test_concurrent_requests_load_a_model_once(files: dict[str, Path], loaded: list[str]) -> None:
    models = ModelCache(files, CPU, room=3)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: models["b"], range(8)))
    assert loaded == ["a", "b"]


def test_a_missing_or_damaged_file_is_an_error(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be read"):
        ModelCache({"a": tmp_path / "nothing.safetensors"}, CPU)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(files["a"].read_bytes()[:100])
    with pytest.raises(SetupError):
        ModelCache({"a": damaged}, CPU)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_batch_that_fails_twice_fails_its_images(failures: int) -> None:
    left = iter(range(failures))
    retries: list[str] = []

    class Metrics(NoMetrics):
        def count(self, name: str, amount: float = 1.0, *labels: str) -> None:
            retries.append(f"{name} {labels[0]}")

    def broken(pixels_NHWC: Tensor) -> Tensor:
        for _ in left:
            raise RuntimeError("out of luck")
        return pixels_NHWC

    retrying = RetryOnce(broken, Metrics())
    if failures == 1:
        assert retrying(GREY_NHWC) is GREY_NHWC
    else:
        with pytest.raises(SkipImage, match="cannot be translated: out of luck"):
            retrying(GREY_NHWC)
    assert retries == ["retries_total generate"]


def test_concurrent_batches_of_more_models_than_fit_in_memory_get_the_right_results(files: dict[str, Path]) -> None:
    """A model may be removed from the cache while another thread translates with it."""
    expected = {name: ModelCache({name: path}, CPU)[name](GREY_NHWC) for name, path in files.items()}
    models = ModelCache(files, CPU, room=1)
    names = [*"abc"] * 10
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda name: models[name](GREY_NHWC), names))
    assert all(torch.equal(result, expected[name]) for name, result in zip(names, results, strict=True))
