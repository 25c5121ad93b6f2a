"""What runs in an actor, without Ray: it is an object with a thread."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from engine.archive.config import ArchiveConfig
from engine.archive.convert import convert
from engine.archive.destination import open_destination
from engine.archive.distributed.worker import ArchiveWorker, InputQueue, NodeShare
from engine.archive.parallel_child import ShareTask
from engine.archive.parallel_messages import ChildMessage, ImagesEnded, ModelLoaded, RunStopped
from engine.archive.plan import PlannedInput
from engine.config import GenerateConfig, PipelineConfig
from engine.errors import SetupError
from engine.listing import list_inputs
from engine.model.weights import Generator
from engine.options import Options, Size
from engine.system.versions import installed
from tests.engine.archive.test_convert import files
from tests.images import photo

CONFIG = PipelineConfig(
    options=Options(size=Size.parse("native")), generate=GenerateConfig(backend="eager", device="cpu")
)


def task(dst: Path, generator: Generator) -> ShareTask:
    return ShareTask(
        index=0,
        inputs=[],
        destination=open_destination("src", dst, ArchiveConfig()),
        model=generator,
        config=CONFIG,
        recipe="recipe",
        max_bytes=1 << 30,
        keep_times=False,
        read_ahead=4,
        gallery=None,
        threads=1,
    )


def node(src: Path) -> NodeShare:
    return NodeShare(
        device="cpu",
        cores=1,
        actors_per_node=1,
        folder=str(Path.cwd()),
        source=str(src),
        token=None,
        version=installed("solstice-engine"),
    )


def until_ended(worker: ArchiveWorker, number: int) -> list[ChildMessage]:
    """Return messages until `number` images have ended, or the worker has stopped."""
    heard: list[ChildMessage] = []
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        heard += worker.messages()
        ended = sum(len(message.outcomes) for message in heard if isinstance(message, ImagesEnded))
        if ended >= number or any(isinstance(message, RunStopped) for message in heard):
            return heard
    raise AssertionError(heard)


def test_a_worker_translates_shares_as_they_come(tmp_path: Path, generator: Generator) -> None:
    """Images that wait for a batch do not wait for a share that comes only after them."""
    src, dst = tmp_path / "src", tmp_path / "dst"
    src.mkdir()
    dst.mkdir()
    for i in range(5):
        (src / f"{i}.png").write_bytes(photo(32 + 4 * (i % 2), 32, seed=i, format="PNG"))
    planned = [PlannedInput(item, item.key, "png") for item in list_inputs(src).inputs]
    worker = ArchiveWorker(task(dst, generator), node(src), 3)
    worker.give(planned[:3])
    first = until_ended(worker, 3)
    assert isinstance(first[0], ModelLoaded)
    assert first[0].backend.startswith("eager fp32 on cpu")
    worker.give(planned[3:])
    until_ended(worker, 2)
    convert(src, tmp_path / "local", generator, CONFIG)
    assert files(dst) == files(tmp_path / "local")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"version": "0.0.1"}, "has version .* of Solstice, this one is 0.0.1; install the same one everywhere"),
        ({"source": "/no/such/folder"}, 'cannot see "/no/such/folder"; use a folder that all nodes share, or the URL'),
        ({"token": Path("/no/such/token")}, "sees another output folder than this machine; use a folder that all"),
    ],
)
def test_a_node_without_the_folders_or_the_version_of_the_driver_stops_the_run_with_one_sentence(
    change: dict[str, object], complaint: str, tmp_path: Path, generator: Generator
) -> None:
    worker = ArchiveWorker(task(tmp_path, generator), replace(node(tmp_path), **change), 0)  # type: ignore[arg-type]
    [stopped] = until_ended(worker, 1)
    assert isinstance(stopped, RunStopped)
    with pytest.raises(SetupError, match=f"^The Ray node .* {complaint}.*\\.$"):
        raise stopped.error


def test_a_queue_without_inputs_yields_ticks() -> None:
    queue = InputQueue()
    items = iter(queue)
    assert next(items) is None
    queue.add([PlannedInput(list_inputs(Path(__file__)).inputs[0], "a", "png")])
    assert next(items) is not None
    assert next(items) is None
