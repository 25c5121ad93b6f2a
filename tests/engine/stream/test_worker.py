"""Life cycle of a worker: start, work, drain, and exit when something is stuck."""

from __future__ import annotations

import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from engine.config import BatchConfig, GenerateConfig, PipelineConfig
from engine.errors import SetupError
from engine.stream.config import StreamConfig
from engine.stream.worker import STUCK_EXIT_CODE, Worker, model_files
from tests.stream.brokers import free_port, noida
from tests.stream.stream import Stream, eventually, tiny_model


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a broker."""
    with noida(tmp_path_factory.mktemp("noida") / "data") as address:
        yield address


@pytest.fixture
def stream(broker: str, tmp_path: Path) -> Iterator[Stream]:
    """Return topics and folders of one test."""
    made = Stream(broker, tmp_path, tiny_model(tmp_path / "tiny.safetensors"), partitions=1)
    yield made
    made.close()


def settings(stream: Stream, **options: Any) -> StreamConfig:
    """Return the configuration of a worker of these topics."""
    defaults: dict[str, Any] = {
        "connection": stream.connection,
        "jobs": stream.jobs,
        "results": stream.results_topic,
        "dead_letters": stream.dead_topic,
        "group": stream.name,
        "models": (str(stream.model),),
        "input_roots": (str(stream.inputs),),
        "output_root": str(stream.outputs),
        "pipeline": PipelineConfig(
            batch=BatchConfig(size=4, max_wait_s=0.02), generate=GenerateConfig(backend="eager", device="cpu")
        ),
        "fetch_wait_s": 0.025,
    }
    return StreamConfig(**{**defaults, **options})


class Stuck:
    """Generator that blocks until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        self.entered.set()
        assert self.go_on.wait(60)
        return pixels_NHWC


def ended_with(stream: Stream, meanwhile: Callable[[Worker], object], **options: Any) -> list[int]:
    """Run a worker whose generator blocks at its first batch; return the exit codes it would have ended with."""
    codes: list[int] = []
    stuck = Stuck()
    worker = Worker(settings(stream, **options), {"tiny": stuck}, codes.append)
    thread = threading.Thread(target=worker.work, daemon=True)
    thread.start()
    stream.submit_photos(1)
    assert stuck.entered.wait(30)
    meanwhile(worker)
    eventually(lambda: bool(codes), 20)
    assert stream.committed() == 0, "what has not ended is not committed"
    stuck.go_on.set()
    worker.stop()
    thread.join(30)
    assert not thread.is_alive()
    return codes


def test_a_worker_becomes_ready_does_jobs_and_drains_on_sigterm(stream: Stream) -> None:
    port = free_port()
    worker = Worker(settings(stream, metrics_port=port))
    assert worker.health.missing() == ["running"]
    seen: list[str] = []

    def watch() -> None:
        eventually(lambda: worker.health.missing() == [])
        stream.submit_photos(3)
        stream.results(3)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            seen.append(answer.read().decode())
        os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    threading.Thread(target=watch, daemon=True).start()
    try:
        assert worker.run() == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert seen == ['{"ok": true, "waiting_for": []}\n']
    assert "running" in worker.health.missing()
    assert stream.committed() == 3
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10)


def test_a_drain_longer_than_the_grace_period_ends_with_exit_code_1(stream: Stream) -> None:
    assert ended_with(stream, Worker.stop, grace_s=0.5) == [1]


@pytest.mark.parametrize("batches_in_flight", [1, 3])
def test_a_stuck_generator_ends_the_process(stream: Stream, batches_in_flight: int) -> None:
    """This holds even while the idle source sends ticks past the stuck batch."""
    pipeline = PipelineConfig(
        batch=BatchConfig(size=4, max_wait_s=0.02),
        generate=GenerateConfig(backend="eager", device="cpu", batches_in_flight=batches_in_flight),
    )
    assert ended_with(stream, lambda _: None, pipeline_stuck_s=3.0, pipeline=pipeline) == [STUCK_EXIT_CODE]


def test_jobs_choose_models_by_file_name(tmp_path: Path) -> None:
    winter, summer = (tiny_model(tmp_path / f"{name}.safetensors") for name in ("winter", "summer"))
    assert list(model_files([str(winter), str(summer)]).items()) == [("winter", winter), ("summer", summer)]


def test_two_models_of_the_same_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, other = (tiny_model(tmp_path / folder / "winter.safetensors") for folder in (".", "other"))
    with pytest.raises(SetupError, match="Two models are called winter"):
        model_files([str(one), str(other)])
    with pytest.raises(SetupError, match="nobody"):
        model_files(["nobody"])


def test_a_missing_topic_is_an_error_before_a_model_is_loaded(stream: Stream) -> None:
    with pytest.raises(SetupError, match="There is no topic nowhere"):
        Worker(StreamConfig(**{**vars(settings(stream)), "jobs": "nowhere", "models": ("not loaded",)}))
