"""Translate one archive on several devices at once: a process for each, and one manifest for all.

    child on cuda:0   source → … → sink ┐
                                        ├ outcomes → parent: manifest, progress, summary, report
    child on cuda:1   source → … → sink ┘

The parent holds the manifest's lock and alone writes to it. A child is the pipeline of `solstice convert` over its
share of the inputs; it reads in the manifest what is done, and tells the parent of each image that it has stored. What
the parent has not heard of when a process dies is done again by the next run, with the same result.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from engine.archive import Progress, Run, Summary, begin, open_sink, open_source
from engine.catalog import find_model, load_generator
from engine.config import PipelineConfig, num_cores
from engine.device import choose_device, cuda_obstacle
from engine.errors import EngineError, SetupError, StopRun
from engine.generate import Translator
from engine.manifest import FOLDER, Entry, ManifestReader
from engine.memory import available_bytes
from engine.metrics import Metrics, Silent, StageName
from engine.naming import output_name
from engine.pipeline import Pipeline
from engine.records import Failed, Outcome
from engine.report import Comparison, Gallery
from engine.run_report import ReportKind
from engine.sources.archive import ArchiveSource, entry_of
from engine.sources.listing import Input, Listing
from engine.storage import is_url

log = logging.getLogger(__name__)

_TELL_EVERY_S = 0.1
_GRACE_S = 10.0


def parse_devices(text: str) -> tuple[str, ...]:
    """Read `all` (every GPU) or a list such as `cuda:0,cuda:1`; raises `SetupError` for what is not there."""
    if text == "all":
        obstacle = cuda_obstacle()
        if obstacle is not None:
            raise SetupError(f"--devices all: {obstacle}, or use --device cpu.")
        return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    devices = tuple(str(choose_device(name.strip())) for name in text.split(","))
    twice = [name for name in devices if name != "cpu" and devices.count(name) > 1]
    if twice:
        raise SetupError(f"--devices names {twice[0]} twice; a GPU takes one process.")
    return devices


def convert_on(
    devices: Sequence[str],
    src: str | Path,
    dst: str | Path,
    model: str | Path,
    config: PipelineConfig | None = None,
    *,
    overwrite: bool = False,
    keep_times: bool = False,
    report: ReportKind | None = None,
    progress: Progress | None = None,
    metrics: Metrics | None = None,
) -> Summary:
    """Do as `engine.archive.convert` does, on all `devices` at once, which may name `cpu` several times.

    Decoding and encoding threads are divided among the processes; `config.generate.memory_bytes` is for each. A script
    that calls this needs the usual `if __name__ == "__main__"`, because new processes import it. Raises what `convert`
    raises, and `StopRun` when a process dies: the others are stopped then.
    """
    config = config or PipelineConfig()
    generator = load_generator(model)
    _, _ = open_source(src, dst)  # its errors are the user's; each child lists for itself
    with begin(
        src, dst, generator, config, keep_times=keep_times, report=report, progress=progress, metrics=metrics
    ) as run:
        _clear_partial(dst)
        tasks = [
            _Task(
                share=Share(index, len(devices)),
                src=src,
                dst=dst,
                model=find_model(str(model)),
                config=_share_of(config, device, len(devices)),
                manifest=run.manifest.root,
                created_s=run.manifest.created_s,
                recipe=run.recipe,
                overwrite=overwrite,
                keep_times=keep_times,
                gallery=None if run.page is None else run.page.sample,
                threads=max(1, num_cores() // len(devices)),
            )
            for index, device in enumerate(devices)
        ]
        try:
            with _started(tasks) as children:
                outcomes = _outcomes(children, run)
                next(outcomes)  # the first is ready: the run begins
                run.follow(outcomes, lambda: sum(child.skipped for child in children))
            return run.summary(sum(child.skipped for child in children), _reasons(children))
        finally:
            _clear_partial(dst)


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


# What a child is given, and what it tells.


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


_Measurement = tuple[str, tuple[Any, ...]]
"""Name and arguments of a method of `Metrics`."""


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


# The parent.


@dataclass
class _Child:
    device: str
    process: Any
    messages: Connection
    reason: str = ""
    skipped: int = 0
    finished: bool = False


@contextmanager
def _started(tasks: list[_Task]) -> Iterator[list[_Child]]:
    """Run a process for each task during a `with` block; none is left behind."""
    context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
    children: list[_Child] = []
    try:
        with _interrupts_held():
            for task in tasks:
                messages, end = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(task, end), name=task.config.generate.device)
                children.append(_Child(task.config.generate.device, process, messages))
                process.start()
                end.close()  # so that the child's end is the only one, and its death the end of messages
        yield children
    finally:
        with _interrupts_held():
            _stop(children)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back, for good in processes started meanwhile: a terminal sends it to all, one is to act on it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(children: list[_Child]) -> None:
    running = [child.process for child in children if child.process.is_alive()]
    for child in children:
        if child.process in running and not child.finished:
            child.process.terminate()
    until_s = time.monotonic() + _GRACE_S
    for process in running:
        process.join(max(0.0, until_s - time.monotonic()))
        process.kill()
        process.join()
    for child in children:
        child.messages.close()


def _outcomes(children: list[_Child], run: Run) -> Iterator[Outcome | None]:
    """Record and give outcomes as the children tell them, until all have finished; None when one has loaded its model.

    Raises what stopped one of them.
    """
    listening = {child.messages: child for child in children}
    while listening:
        for messages in wait(list(listening)):
            child = listening[messages]  # type: ignore[index]
            try:
                message: _Message = child.messages.recv()
            except EOFError:
                child.process.join(_GRACE_S)
                raise StopRun(_death(child)) from None
            yield from _heard(message, child, run)
            if child.finished:
                del listening[child.messages]


def _heard(message: _Message, child: _Child, run: Run) -> Iterator[Outcome | None]:
    match message:
        case _Ended(outcomes, skipped, measurements):
            child.skipped = skipped
            for method, arguments in measurements:
                getattr(run.metrics, method)(*arguments)
            for outcome in outcomes:
                run.manifest.record(entry_of(outcome, run.recipe))
                run.metrics.outcome(outcome.stage if isinstance(outcome, Failed) else None)
                yield outcome
        case _Ready(reason):
            child.reason = reason
            yield None
        case _Said(level, text):
            log.log(level, "%s: %s", child.device, text)
        case _Shown(comparison):
            if run.page is not None:
                run.page.gallery.add(comparison)
        case _Broken(error):
            raise error
        case _Crashed(trace):
            raise RuntimeError(f"the process for {child.device} failed:\n{trace}")
        case _Finished():
            child.finished = True


def _death(child: _Child) -> str:
    code = child.process.exitcode
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    return f"The process for {child.device} {how}; what is done is kept. Run the same command again to go on."


def _reasons(children: list[_Child]) -> str:
    """Say what translated; once where all said the same."""
    reasons = list(dict.fromkeys(child.reason for child in children))
    return f"{len(children)} processes: {'; '.join(reasons)}"


def _share_of(config: PipelineConfig, device: str, of: int) -> PipelineConfig:
    """Divide what the machine has once, threads and memory, among `of` processes."""
    generate = config.generate
    memory_bytes = generate.memory_bytes
    if memory_bytes is None and device == "cpu":
        memory_bytes = available_bytes() // (2 * of)
    pixels = generate.expected_pixels
    return replace(
        config,
        decode=replace(config.decode, workers=max(1, config.decode.workers // of)),
        encode=replace(config.encode, workers=max(1, config.encode.workers // of)),
        generate=replace(
            generate,
            device=device,
            lanes=None,
            memory_bytes=memory_bytes,
            expected_pixels=None if pixels is None else pixels // of,
        ),
    )


def _partial(dst: str | Path) -> Path:
    return Path(dst) / FOLDER / "partial"


def _clear_partial(dst: str | Path) -> None:
    """Delete unfinished files of processes that were killed."""
    if not is_url(dst):
        shutil.rmtree(_partial(dst), ignore_errors=True)


# A child.


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
