"""Roll out a new model: a share of the jobs first, chosen equally by all workers, then a switch worker by worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import SetupError
from engine.stream.canary import Canary
from tests.stream.brokers import free_port
from tests.stream.stream import Stream, eventually, photo, tiny_model
from tests.stream.test_health import metric


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of a generator whose weights differ from those of `model`."""
    return tiny_model(tmp_path_factory.mktemp("new") / "new.safetensors", seed=1)


def submit(stream: Stream, ids: list[str], **fields: str) -> None:
    for id in ids:
        stream.submit(id=id, source=stream.add_photo(f"{id}.jpg", photo()), output=f"{id}.jpg", **fields)
    stream.flush()


def test_canary_on_two_workers_and_the_switch_to_the_new_model(stream: Stream, new: Path) -> None:
    # Given two workers with the same canary
    canary = Canary(str(new), 0.25)
    port = free_port()
    first = stream.worker(canary=canary, metrics_port=port)
    second = stream.worker(canary=canary)
    eventually(lambda: not first.health.missing() and not second.health.missing())
    ids = [f"job-{number}" for number in range(60)]
    chosen = {id for id in ids if canary.takes(id)}
    # When most jobs name no model and one each names the old and the new one
    submit(stream, ids)
    submit(stream, ["wants-old"], model="tiny")
    submit(stream, ["wants-new"], model="new")
    # Then the share was translated by the new model, whichever worker had the job, and results name their model
    results = {result["id"]: result for result in stream.results(62)}
    assert 0 < len(chosen) < 60
    assert {id for id, result in results.items() if result["model"] == "new"} == {*chosen, "wants-new"}
    assert {result["model"] for result in results.values()} == {"new", "tiny"}
    assert len({result["model_sha256"] for result in results.values()}) == 2
    files = stream.files()
    assert len({files[f"{id}.jpg"] for id in chosen}) == 1
    assert files["wants-new.jpg"] == files[f"{min(chosen)}.jpg"] != files["wants-old.jpg"]
    # And the metrics name the models
    counts = metric(port, "solstice_job_seconds_count")
    assert {labels for labels, count in counts.items() if count} <= {
        '{model="new",outcome="done"}',
        '{model="tiny",outcome="done"}',
    }
    # And a second delivery chooses the same model, so that either worker finds the stored result
    submit(stream, ids)
    eventually(lambda: sum(result["duplicate"] for result in repeated(stream)) == 60)
    assert all(result["model"] == results[result["id"]]["model"] for result in repeated(stream))
    # When the workers are replaced one by one by workers whose default is the new model
    stream.stop(first)
    third = stream.worker(models=(str(new), str(stream.model)))
    eventually(lambda: not third.health.missing() and not second.health.missing())
    stream.stop(second)
    later = [f"later-{number}" for number in range(20)]
    submit(stream, later)
    submit(stream, ["still-old"], model="tiny")
    # Then it translates all jobs except those that name the old model, and no job is lost
    results = {result["id"]: result for result in stream.results(83)}
    assert {results[id]["model"] for id in later} == {"new"}
    assert results["still-old"]["model"] == "tiny"
    assert stream.committed_eventually() == 143


def repeated(stream: Stream) -> list[dict[str, Any]]:
    return [result for result in stream.results(62) if "duplicate" in result]


def test_a_failed_result_and_its_dead_letter_name_the_model(stream: Stream, new: Path) -> None:
    stream.worker(canary=Canary(str(new), 1.0))
    stream.submit(id="broken", source=stream.add_photo("broken.jpg", photo()[:100]))
    stream.flush()
    (result,) = stream.results(1)
    assert (result["status"], result["model"]) == ("failed", "new")
    (letter,) = stream.dead_letters(1)
    assert dict(letter.headers)["solstice-model"] == b"new"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"canary": Canary("tiny", 0.1)}, "There is no model named tiny"),
        ({"canary": Canary("{model}", 0.1)}, "--canary names tiny, which is the default model already; name another."),
        ({"canary": Canary("{new}", 0.1), "resident_models": 1}, "--canary needs two models in memory"),
        ({"canary": Canary("{other}", 0.1)}, "Two models are called tiny"),
    ],
)
def test_an_invalid_canary_stops_the_start_with_a_sentence(
    stream: Stream, new: Path, tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "other").mkdir()
    other = tiny_model(tmp_path / "other/tiny.safetensors", seed=2)
    canary: Canary = options["canary"]
    path = canary.model.format(model=stream.model, new=new, other=other)
    with pytest.raises(SetupError, match=sentence):
        stream.worker(**{**options, "canary": Canary(path, canary.share)})
