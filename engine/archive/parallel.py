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
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from engine.archive.convert import Progress, Run, Summary, begin, open_source
from engine.archive.manifest import FOLDER
from engine.archive.parallel_child import (
    Share,
    _Broken,
    _Crashed,
    _Ended,
    _Finished,
    _Message,
    _Ready,
    _Said,
    _Shown,
    _Task,
    _work,
)
from engine.archive.report.run import ReportKind
from engine.archive.source import entry_of
from engine.config import PipelineConfig, num_cores
from engine.errors import SetupError, StopRun
from engine.model.weights import find_model, load_generator
from engine.observe.metrics import Metrics
from engine.records import Failed, Outcome
from engine.system.device import choose_device, cuda_obstacle
from engine.system.memory import available_bytes
from engine.system.storage import is_url

log = logging.getLogger(__name__)

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


# What a child is given, and what it tells.


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
