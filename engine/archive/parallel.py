"""Translate one archive on several devices: one process for each device, and one manifest for all.

    child on cuda:0   source → … → sink ┐
                                        ├ messages → parent: manifest, progress, summary, report
    child on cuda:1   source → … → sink ┘

The parent holds the manifest's lock and alone writes to it. A child runs the pipeline of `solstice convert` over its
share of the inputs and sends a message for the images that it has stored. Results whose message is lost when a process
dies are made again by the next run, with the same bytes.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import torch

from engine.archive.config import ArchiveConfig
from engine.archive.convert import NOTHING_TO_DO
from engine.archive.parallel_child import ShareTask, translate_share
from engine.archive.parallel_messages import (
    ChildMessage,
    ComparisonMade,
    ImagesEnded,
    LogMessage,
    ModelLoaded,
    OldestUnderWay,
    ProcessCrashed,
    RunStopped,
    ShareFinished,
)
from engine.archive.report import ReportKind
from engine.archive.run import ArchiveRun, Progress, RunRequest, Summary, started_run
from engine.archive.source import entry_of
from engine.config import PipelineConfig, num_cores
from engine.errors import SetupError, StopRun
from engine.model.card import find_model
from engine.model.weights import Generator
from engine.observe.metrics import Metrics
from engine.records import Failed, Outcome
from engine.system.device import choose_device, cuda_obstacle
from engine.system.memory import available_bytes

log = logging.getLogger(__name__)

SHUTDOWN_TIMEOUT_S = 10.0


def parse_devices(text: str) -> tuple[str, ...]:
    """Parse `all` (every GPU) or a list such as `cuda:0,cuda:1`; raise `SetupError` for a missing device."""
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
    archive: ArchiveConfig | None = None,
    report: ReportKind | None = None,
    progress: Progress | None = None,
    metrics: Metrics | None = None,
) -> Summary:
    """Translate as `engine.archive.convert.convert` does, on all `devices` at once; `cpu` may be named several times.

    Decoding and encoding threads are divided among the processes; `config.generate.memory_bytes` is the limit of each
    process. A calling script needs `if __name__ == "__main__"`, because new processes import it. Raises the errors of
    `convert`, and `StopRun` when a process dies; the others are stopped then.
    """
    request = RunRequest.of(src, dst, model, config, archive, report=report, progress=progress, metrics=metrics)
    with started_run(request) as run:
        run.start()
        if not run.plan.todo:
            return run.summary(NOTHING_TO_DO)
        with _started(_tasks(devices, request, run, find_model(str(model)))) as children:
            outcomes = _received_outcomes(children, run)
            next(outcomes)  # waits until one model is loaded, which is not part of the run's time
            run.follow(outcomes)
        return run.summary(f"{len(children)} processes: {backends_of(children)}")


def _tasks(devices: Sequence[str], request: RunRequest, run: ArchiveRun, model: Path) -> list[ShareTask]:
    """Divide the planned inputs among the devices: one by one in turn, so that each gets a part of every folder."""
    common = common_task(request, run, model)
    return [
        replace(
            common,
            index=index,
            inputs=run.plan.todo[index :: len(devices)],
            config=share_of(run.config, device, len(devices)),
            threads=max(1, num_cores() // len(devices)),
        )
        for index, device in enumerate(devices)
    ]


def common_task(request: RunRequest, run: ArchiveRun, model: Path | Generator) -> ShareTask:
    """Return what all workers of a run are told alike, without inputs; index, config and threads are each one's own."""
    return ShareTask(
        index=0,
        inputs=[],
        destination=run.destination,
        model=model,
        config=run.config,
        recipe=run.recipe,
        max_bytes=request.archive.max_bytes,
        keep_times=request.archive.keep_times,
        read_ahead=run.plan.read_ahead,
        gallery=None if run.page is None else run.page.sample,
        threads=1,
    )


class ShareWorker(Protocol):
    """What translates a share, as the parent sees it."""

    name: str
    """Device or machine."""
    backend: str
    """What translates there, and why it was chosen."""
    finished: bool


@dataclass
class ChildProcess:
    """A child process as the parent sees it."""

    name: str
    """The device."""
    process: BaseProcess
    messages: Connection
    backend: str = ""
    finished: bool = False


@contextmanager
def _started(tasks: list[ShareTask]) -> Iterator[list[ChildProcess]]:
    """Start a process for each task, and stop all of them at the end of the `with` block."""
    context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
    children: list[ChildProcess] = []
    try:
        with _interrupts_held():
            for task in tasks:
                messages, end = context.Pipe(duplex=False)
                process = context.Process(target=translate_share, args=(task, end), name=task.config.generate.device)
                children.append(ChildProcess(task.config.generate.device, process, messages))
                process.start()
                end.close()  # the child holds the only other end, so its death ends the messages
        yield children
    finally:
        with _interrupts_held():
            _stop(children)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Block SIGINT here and, for good, in processes started meanwhile: only the parent handles Ctrl-C."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stop(children: list[ChildProcess]) -> None:
    running = [child.process for child in children if child.process.is_alive()]
    for child in children:
        if child.process in running and not child.finished:
            child.process.terminate()
    until_s = time.monotonic() + SHUTDOWN_TIMEOUT_S
    for process in running:
        process.join(max(0.0, until_s - time.monotonic()))
        process.kill()
        process.join()
    for child in children:
        child.messages.close()


def _received_outcomes(children: list[ChildProcess], run: ArchiveRun) -> Iterator[Outcome | None]:
    """Record and yield outcomes as messages arrive, until all children have finished.

    None means that one of them has loaded its model. Raises `StopRun` when a child dies, else as `handle_message`.
    """
    listening = {child.messages: child for child in children}
    while listening:
        for messages in wait(list(listening)):
            child = listening[messages]  # type: ignore[index]
            try:
                message: ChildMessage = child.messages.recv()
            except EOFError:
                child.process.join(SHUTDOWN_TIMEOUT_S)
                raise StopRun(_death(child)) from None
            yield from handle_message(message, child, run)
            if child.finished:
                del listening[child.messages]


def handle_message(message: ChildMessage, child: ShareWorker, run: ArchiveRun) -> Iterator[Outcome | None]:
    """Act on one message of `child`: yield the outcomes in it, and None when its model is loaded.

    Raises `EngineError` when the child stopped with one, and `RuntimeError` with its traceback when it crashed.
    """
    match message:
        case ImagesEnded(outcomes, measurements):
            for measurement in measurements:
                measurement.apply(run.metrics)
            for outcome in outcomes:
                record_outcome(outcome, run)
                yield outcome
        case ModelLoaded(backend):
            child.backend = backend
            yield None
        case OldestUnderWay(key, seconds):
            run.note_under_way(id(child), key, seconds)
        case LogMessage(level, text):
            log.log(level, "%s: %s", child.name, text)
        case ComparisonMade(comparison):
            if run.page is not None:
                run.page.gallery.add(comparison)
        case RunStopped(error):
            raise error
        case ProcessCrashed(traceback):
            raise RuntimeError(f"the process for {child.name} failed:\n{traceback}")
        case ShareFinished():
            child.finished = True


def record_outcome(outcome: Outcome, run: ArchiveRun) -> None:
    """Record what became of one input in the manifest, and count it."""
    run.manifest.record(entry_of(outcome, run.recipe))
    run.metrics.outcome(outcome.stage if isinstance(outcome, Failed) else None)


def _death(child: ChildProcess) -> str:
    code = child.process.exitcode
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    return f"The process for {child.name} {how}; what is done is kept. Run the same command again to go on."


def backends_of(workers: Iterable[ShareWorker]) -> str:
    """Return what translated; the same text of several workers once."""
    return "; ".join(dict.fromkeys(worker.backend for worker in workers if worker.backend))


def share_of(config: PipelineConfig, device: str, of: int) -> PipelineConfig:
    """Divide the threads and the memory of the machine among `of` processes."""
    generate = config.generate
    memory_bytes = generate.memory_bytes
    if device == "cpu":
        memory_bytes = (memory_bytes or available_bytes() // 2) // of
    pixels = generate.expected_pixels
    return replace(
        config,
        in_flight_bytes=(config.in_flight_bytes or available_bytes() // 4) // of,
        max_image_bytes=(config.max_image_bytes or available_bytes() // 2) // of,
        decode=replace(config.decode, workers=max(1, config.decode.workers // of)),
        encode=replace(config.encode, workers=max(1, config.encode.workers // of)),
        generate=replace(
            generate,
            device=device,
            batches_in_flight=None,
            memory_bytes=memory_bytes,
            expected_pixels=None if pixels is None else pixels // of,
        ),
    )
