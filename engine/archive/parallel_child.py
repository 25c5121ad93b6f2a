"""A process of a run on several devices or machines: the pipeline over one share of the archive."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from engine.archive.destination import Destination
from engine.archive.parallel_messages import (
    ComparisonMade,
    CounterMeasurement,
    HistogramMeasurement,
    ImagesEnded,
    LogMessage,
    Measurement,
    MessageSender,
    ModelLoaded,
    OldestUnderWay,
    PipeSender,
    ProcessCrashed,
    RunStopped,
    ShareFinished,
    StageMeasurement,
)
from engine.archive.plan import PlannedInput
from engine.archive.report.gallery import Comparison, Gallery
from engine.archive.source import ArchiveSource
from engine.config import PipelineConfig
from engine.errors import EngineError
from engine.model.weights import Generator, load_generator
from engine.observe.metrics import NoMetrics, StageName
from engine.pipeline import Pipeline
from engine.records import Outcome
from engine.runtime.translator import BatchTranslator
from engine.system.allocator import keep_freed_memory
from engine.system.device import choose_device

_SEND_EVERY_S = 0.1
_LOOK_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class ShareTask:
    """Everything that a child process needs to translate its share of the inputs."""

    index: int
    """Number of the process, from 0."""
    inputs: Iterable[PlannedInput | None]
    """The share; None means that the next input is not known yet."""
    destination: Destination
    model: Path | Generator
    config: PipelineConfig
    recipe: str
    max_bytes: int
    keep_times: bool
    read_ahead: int
    gallery: tuple[int | None, int | None] | None
    """Arguments of a `Gallery`; None without a report."""
    threads: int
    """PyTorch threads on a CPU."""


def translate_share(task: ShareTask, parent: Connection) -> None:
    """Translate one share of the archive and send messages to `parent`: the main function of a child process."""
    signal.signal(signal.SIGTERM, _interrupt)
    keep_freed_memory()
    threading.Thread(target=_exit_with_parent, name="parent", daemon=True).start()
    with suppress(KeyboardInterrupt):
        run_share(task, PipeSender(parent))


def run_share(task: ShareTask, sender: MessageSender) -> None:
    """Translate one share and send messages, of which the last says how it ended."""
    logging.basicConfig(level=logging.WARNING, handlers=[LogSender(sender)], force=True)
    try:
        _translate(task, sender)
        sender.send(ShareFinished())
    except EngineError as error:
        sender.send(RunStopped(error))
    except Exception:  # noqa: BLE001 (raised again in the parent)
        sender.send(ProcessCrashed(traceback.format_exc()))


def _translate(task: ShareTask, sender: MessageSender) -> None:
    config = task.config
    device = choose_device(config.generate.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # libraries without a device argument use the current one
    else:
        torch.set_num_threads(min(torch.get_num_threads(), task.threads))
    generator = task.model if isinstance(task.model, Generator) else load_generator(task.model)
    translator = BatchTranslator(generator, config.translator)
    sender.send(ModelLoaded(translator.reason))
    sink = task.destination.sink(keep_times=task.keep_times, part=str(task.index))
    gallery = None if task.gallery is None else GallerySender(*task.gallery, sender)
    measurements = MeasurementBuffer()
    source = ArchiveSource(
        task.inputs,
        lambda _: None,  # the parent records the outcomes
        config.options,
        task.recipe,
        max_bytes=task.max_bytes,
        read_ahead=task.read_ahead,
    )
    pipeline = Pipeline(source, sink, {config.options.model: translator}, config, measurements, gallery)
    with closing(pipeline.outcomes()) as outcomes, _slow_images_sent(source.oldest_under_way, sender):
        _send_outcomes(outcomes, measurements, sender)


@contextmanager
def _slow_images_sent(
    oldest: Callable[[], tuple[str, float] | None], sender: MessageSender, every_s: float = _LOOK_EVERY_S
) -> Iterator[None]:
    """During a `with` block, send which image has been under way for longer than `every_s`, and when it is over."""
    ended = threading.Event()

    def look() -> None:
        sent = False
        while not ended.wait(every_s):
            key, seconds = oldest() or ("", 0.0)
            slow = seconds >= every_s
            if slow or sent:
                sender.send(OldestUnderWay(key if slow else None, seconds))
            sent = slow

    watcher = threading.Thread(target=look, name="slow images", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _send_outcomes(outcomes: Iterator[Outcome | None], measurements: MeasurementBuffer, sender: MessageSender) -> None:
    """Send outcomes to the parent, several in one message."""
    sent_s, waiting = 0.0, list[Outcome]()
    for outcome in outcomes:
        if outcome is not None:
            waiting.append(outcome)
        if time.monotonic() - sent_s >= _SEND_EVERY_S:
            sender.send(ImagesEnded(waiting, measurements.take()))
            sent_s, waiting = time.monotonic(), []
    sender.send(ImagesEnded(waiting, measurements.take()))


class MeasurementBuffer(NoMetrics):
    """Metrics that keep measurements for the parent, which counts outcomes itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Measurement] = []

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Keep the measurement."""
        self._keep(StageMeasurement(name, seconds, images))

    def count(self, name: str, amount: float = 1.0, *labels: str) -> None:
        """Keep the measurement."""
        self._keep(CounterMeasurement(name, amount, labels))

    def observe(self, name: str, value: float, *labels: str, trace_id: str = "") -> None:  # noqa: ARG002 (no traces here)
        """Keep the measurement."""
        self._keep(HistogramMeasurement(name, value, labels))

    def take(self) -> list[Measurement]:
        """Return the measurements since the last call."""
        with self._lock:
            taken, self._waiting = self._waiting, []
            return taken

    def _keep(self, measurement: Measurement) -> None:
        with self._lock:
            self._waiting.append(measurement)


class GallerySender(Gallery):
    """A gallery over this share that sends what it keeps to the parent's gallery, which chooses among all shares."""

    def __init__(self, keep: int | None, total: int | None, sender: MessageSender) -> None:
        super().__init__(keep, total)
        self._sender = sender

    def add(self, comparison: Comparison) -> None:
        """Keep `comparison` and send it."""
        super().add(comparison)
        self._sender.send(ComparisonMade(comparison))


class LogSender(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, sender: MessageSender) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        """Send the text of `record`."""
        self._sender.send(LogMessage(record.levelno, record.getMessage()))


def _exit_with_parent() -> None:
    """End this process soon after the parent ends, however that happens: another run may start at once."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _interrupt(_signum: int, _frame: object) -> None:
    raise KeyboardInterrupt
