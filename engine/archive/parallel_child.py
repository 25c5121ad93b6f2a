"""A child of a run on several devices: its share of the archive, and what it tells its parent."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from engine.archive.convert import open_sink, open_source
from engine.archive.manifest import Entry, ManifestReader
from engine.archive.report.gallery import Comparison, Gallery
from engine.archive.source import ArchiveSource
from engine.codec.formats import output_name
from engine.config import PipelineConfig
from engine.errors import EngineError
from engine.listing import Input, Listing
from engine.model.weights import load_generator
from engine.observe.metrics import Silent, StageName
from engine.pipeline import Pipeline
from engine.records import Outcome
from engine.runtime.translator import Translator
from engine.system.device import choose_device

_TELL_EVERY_S = 0.1


_Measurement = tuple[str, tuple[Any, ...]]
"""Name and arguments of a method of `Metrics`."""


@dataclass(frozen=True, slots=True)
class Share:
    """One of `of` parts of an archive's inputs, by the names of their results: the same part in every run.

    Inputs that would become the same file are in the same part, where one of them is refused.
    """

    index: int
    of: int

    def has(self, output: str) -> bool:
        """Whether the input that becomes `output` is in this part."""
        return zlib.crc32(output.encode("utf-8", "surrogatepass")) % self.of == self.index

    def pick(self, listing: Listing, format: str) -> Iterator[Input]:
        """Leave out what is in other parts; `format` is the one asked for."""
        return (item for item in listing if self.has(output_name(item.key, format)[0]))


@dataclass(frozen=True, kw_only=True)
class _Task:
    share: Share
    src: str | Path
    dst: str | Path
    model: Path
    config: PipelineConfig
    manifest: Path
    created_s: float
    recipe: str
    overwrite: bool
    keep_times: bool
    gallery: tuple[int | None, int | None] | None
    """Arguments of a `Gallery`, or None where no report is asked for."""
    threads: int
    """Of PyTorch on a CPU."""


@dataclass(frozen=True)
class _Ready:
    reason: str


@dataclass(frozen=True)
class _Ended:
    outcomes: list[Outcome]
    skipped: int
    measurements: list[_Measurement]


@dataclass(frozen=True)
class _Said:
    level: int
    text: str


@dataclass(frozen=True)
class _Shown:
    comparison: Comparison


@dataclass(frozen=True)
class _Broken:
    error: EngineError


@dataclass(frozen=True)
class _Crashed:
    trace: str


@dataclass(frozen=True)
class _Finished:
    pass


_Message = _Ready | _Ended | _Said | _Shown | _Broken | _Crashed | _Finished


def _work(task: _Task, parent: Connection) -> None:
    """Translate one share of the archive: the whole life of a child."""
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    line = _Line(parent)
    logging.basicConfig(level=logging.WARNING, handlers=[_Passed(line)], force=True)
    try:
        _translate(task, line)
        line.tell(_Finished())
    except KeyboardInterrupt:
        return
    except EngineError as error:
        line.tell(_Broken(error))
    except Exception:  # noqa: BLE001 (raised again in the parent)
        line.tell(_Crashed(traceback.format_exc()))


def _translate(task: _Task, line: _Line) -> None:
    config = task.config
    device = choose_device(config.generate.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # libraries that are told nothing take the current one
    else:
        torch.set_num_threads(min(torch.get_num_threads(), task.threads))
    translator = Translator(load_generator(task.model), config.generate)
    line.tell(_Ready(translator.reason))
    listing, read_ahead = open_source(task.src, task.dst)
    sink = open_sink(task.dst, keep_times=task.keep_times, part=str(task.share.index))
    gallery = None if task.gallery is None else _SharedGallery(*task.gallery, line)
    measured = _Measured()
    with closing(ManifestReader(task.manifest)) as reader:
        source = ArchiveSource(
            task.share.pick(listing, config.options.format),
            _ParentsLedger(reader.find, task.created_s),
            sink,
            config.options,
            task.recipe,
            overwrite=task.overwrite,
            read_ahead=read_ahead,
        )
        pipeline = Pipeline(source, sink, {config.options.model: translator}, config, measured, gallery)
        with closing(pipeline.outcomes()) as outcomes:
            _tell_outcomes(outcomes, lambda: source.num_skipped, measured, line)


def _tell_outcomes(
    outcomes: Iterator[Outcome | None], skipped: Callable[[], int], measured: _Measured, line: _Line
) -> None:
    """Pass outcomes on, those of a moment together."""
    told_s, waiting = 0.0, list[Outcome]()
    for outcome in outcomes:
        if outcome is not None:
            waiting.append(outcome)
        if time.monotonic() - told_s >= _TELL_EVERY_S:
            line.tell(_Ended(waiting, skipped(), measured.taken()))
            told_s, waiting = time.monotonic(), []
    line.tell(_Ended(waiting, skipped(), measured.taken()))


@dataclass
class _Line:
    """The way to the parent, for all threads of a child."""

    _parent: Connection
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, message: _Message) -> None:
        with self._lock, suppress(BrokenPipeError):  # nobody listens any more: this process is about to be stopped
            self._parent.send(message)


@dataclass(frozen=True)
class _ParentsLedger:
    """What the manifest knows; the parent records what it is told."""

    find: Callable[[str], Entry | None]
    created_s: float

    def record(self, entry: Entry) -> None:
        pass


class _Measured(Silent):
    """Keeps measurements for the parent, which counts outcomes itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[_Measurement] = []

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        self._keep("stage", name, seconds, images)

    def count(self, name: str, amount: float = 1.0, *labels: str) -> None:
        self._keep("count", name, amount, *labels)

    def observe(self, name: str, value: float, *labels: str) -> None:
        self._keep("observe", name, value, *labels)

    def taken(self) -> list[_Measurement]:
        with self._lock:
            kept, self._kept = self._kept, []
            return kept

    def _keep(self, method: str, *arguments: Any) -> None:
        with self._lock:
            self._kept.append((method, arguments))


class _SharedGallery(Gallery):
    """Keeps what a gallery for this share alone would keep, and shows it to the parent's, which chooses among all."""

    def __init__(self, keep: int | None, total: int | None, line: _Line) -> None:
        super().__init__(keep, total)
        self._line = line

    def add(self, comparison: Comparison) -> None:
        super().add(comparison)
        self._line.tell(_Shown(comparison))


class _Passed(logging.Handler):
    """Lets the parent say what is logged here."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        self._line.tell(_Said(record.levelno, record.getMessage()))


def _end_with_parent() -> None:
    """Outlive the parent by no more than a moment, however it ends: another run may begin at once."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _interrupt(_signum: int, _frame: object) -> None:
    raise KeyboardInterrupt
