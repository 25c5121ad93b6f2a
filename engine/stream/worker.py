"""The process around the stream pipeline: start, signals, drain, watchdog, exit codes."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from engine.errors import SetupError
from engine.model.card import find_model
from engine.observe.health import Health
from engine.observe.metrics import Metrics, NoMetrics
from engine.observe.prometheus import serve_metrics
from engine.observe.tracing import Tracer
from engine.pipeline import Pipeline, Translate, fitted
from engine.runtime.cache import default_cache
from engine.stream.canary import Canary
from engine.stream.client import require_topics
from engine.stream.config import StreamConfig
from engine.stream.crashes import CrashJournal
from engine.stream.inputs import Inputs
from engine.stream.models import ModelCache
from engine.stream.outputs import Output
from engine.stream.sink import KafkaSink
from engine.stream.source import KafkaSource
from engine.stream.topics import committed_notes

log = logging.getLogger(__name__)

STUCK_EXIT_CODE = 70
"""Exit code of a worker that its watchdog ended; the supervisor should start it again."""
SHUTDOWN_TIMEOUT_S = 10.0
"""How long leaving the group, and closing the producer, may take."""


class StoppedDuringStart(BaseException):
    """SIGTERM or SIGINT came before the worker had started; not an error, so nothing may catch it on the way."""


TRACE_SHUTDOWN_S = 3.0
"""How long the last spans may take to be sent."""


@contextmanager
def stoppable_start() -> Iterator[None]:
    """Raise `StoppedDuringStart` on SIGTERM and SIGINT in the body of a `with`, until `Worker.run` handles them."""

    def stop(_number: int, _frame: object) -> None:
        raise StoppedDuringStart

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Worker:
    """One process that translates jobs until it is stopped."""

    def __init__(
        self,
        config: StreamConfig,
        models: Mapping[str, Translate] | None = None,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        """Set up everything except the membership of the group; raises `SetupError`.

        `models` replaces the translators, for benchmarks of everything else. `end_process` is called with an exit code
        when only a new process helps.
        """
        self._end_process = end_process
        self.health = Health()
        self.health.require("running", False, "connecting to the brokers")
        self.health.require("model", False, "waiting for the brokers")
        metrics: Metrics = NoMetrics()
        self._server = None
        if config.metrics_port is not None:
            metrics, self._server = serve_metrics(config.metrics_port, config.metrics_host, self.health)
            log.info("Metrics at http://%s:%d/metrics", config.metrics_host, self._server.port)
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._tracer = None if config.trace_endpoint is None else Tracer(config.trace_endpoint, self.name, metrics)
        topics = (config.jobs, config.results, config.dead_letters)
        require_topics(config.connection, topics, config.create_topics)
        inputs = Inputs(config.input_roots, config.max_source_bytes, config.private_hosts, config.read_timeout_s)
        for number in range(len(config.input_roots)):
            metrics.gauge("source_up", 1.0, str(number))
        output = Output(config.output_root) if config.output_root else None
        files = model_files(config.models)
        canary = None
        if config.canary is not None:
            canary = _beside(config.canary, files, config.resident_models)
        self.health.require("running", False, "starting")
        self.health.require("model", False, f"loading and compiling {next(iter(files))}")
        models_in_memory = ModelCache(files, config.pipeline.translator, config.resident_models, metrics)
        if canary is not None:
            self.health.require("model", False, f"loading and compiling {canary.model}")
            models_in_memory[canary.model]  # a new model that does not load is found here, not by a job
            log.info("%s%% of the jobs that name no model go to %s", f"{canary.share * 100:g}", canary.model)
        self.health.require("model", True)
        pipeline = fitted(config.pipeline)
        self._config = config
        self._sink = KafkaSink(config.connection, config.sink(self.name), output, metrics, self.health)
        if not config.reset_dead_letter_limit:
            self._sink.guard.restore(committed_notes(config.connection, config.jobs, config.group))
        self._journal = CrashJournal(_journal_folder(config, output))
        self._source = KafkaSource(
            config.connection,
            config.source((pipeline.in_flight_bytes or 0) // 2),
            inputs,
            replace(config.pipeline.options, model=next(iter(files))),
            models_in_memory.sha256,
            self._sink.answered,
            metrics,
            self.health,
            self._sink.guard.remember,
            self._journal,
            canary,
            self._tracer,
        )
        self._pipeline = Pipeline(self._source, self._sink, models or models_in_memory, pipeline, metrics)
        self._stopping = threading.Event()
        self._ended = threading.Event()

    def run(self) -> int:
        """Translate until SIGTERM or SIGINT; returns the exit code.

        0: drained. 1: the grace period ended first, and other members do the rest. Raises `StopRun` when the worker
        cannot go on. In each case, only jobs whose results are stored and published are committed.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        return self.work()

    def work(self) -> int:
        """Do the same as `run` without handling signals, in any thread; `stop` ends it."""
        self.health.expect("poll", self._config.poll_stuck_s)
        self.health.expect("pipeline", self._config.pipeline_stuck_s)
        self._source.start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        log.info("Worker %s reads %s as a member of %s", self.name, self._config.jobs, self._config.group)
        self.health.require("running", True)
        drained = False
        try:
            for outcome in self._pipeline.outcomes():
                if outcome is not None or not self._source.is_busy:  # a tick may overtake a job that is stuck
                    self.health.beat("pipeline")
            drained = True
        finally:
            # Leave the group before closing the producer, so that other members take over as soon as possible.
            left = self._source.close(SHUTDOWN_TIMEOUT_S, abandon=not drained)
            self._sink.close(SHUTDOWN_TIMEOUT_S)
            self._journal.close()
            if self._tracer is not None:
                self._tracer.close(TRACE_SHUTDOWN_S)
            self._ended.set()
            if self._server:
                self._server.close()
        log.info("Worker %s has left%s", self.name, "" if left else " without leaving the group")
        return 0

    def stop(self) -> None:
        """Drain: begin nothing more, finish begun jobs, commit, leave the group."""
        self.health.require("running", False, "draining")
        self._source.stop()
        if not self._stopping.is_set():
            self._stopping.set()
            threading.Thread(target=self._limit_grace, name="grace", daemon=True).start()

    def _on_signal(self, number: int, _frame: object) -> None:
        if self._stopping.is_set() and number == signal.SIGINT:
            os._exit(130)  # a second Ctrl-C
        self.stop()

    def _limit_grace(self) -> None:
        """End the process when draining takes too long; unfinished jobs are delivered to other members."""
        if self._ended.wait(self._config.grace_s):
            return
        log.warning("Jobs are still in flight after %.0f s; they are left to other workers", self._config.grace_s)
        self._sink.give_up()
        self._source.close(SHUTDOWN_TIMEOUT_S, abandon=True)
        self._journal.close()  # this is no crash
        self._end_process(1)

    def _watch(self) -> None:
        """End the process when a heartbeat is overdue: only a new process helps, and others take over meanwhile."""
        while not self._ended.wait(1.0):
            silent = self.health.silent()
            if silent:
                log.critical("No sign of life from %s; ending the process to be started again", " and ".join(silent))
                self._end_process(STUCK_EXIT_CODE)
                return


def _journal_folder(config: StreamConfig, output: Output | None) -> Path:
    """Return a folder that the workers of a group share, or else one that outlives this process."""
    shared = None if output is None else output.hidden_folder
    if shared is not None:
        return shared / "begun"
    name = hashlib.sha256("\n".join((config.connection.brokers, config.jobs, config.group)).encode()).hexdigest()
    return default_cache() / "begun" / name[:32]


def model_files(names: Sequence[str]) -> dict[str, Path]:
    """Map the name that jobs use to the file, for each model name or file; raises `SetupError`."""
    files: dict[str, Path] = {}
    for name in names:
        path = find_model(name)
        if path.stem in files:
            raise SetupError(f"Two models are called {path.stem}; jobs could not distinguish them.")
        files[path.stem] = path
    return files


def _beside(canary: Canary, files: dict[str, Path], room: int) -> Canary:
    """Return `canary` under the name that jobs use, and add its file to `files`; raises `SetupError`."""
    path = find_model(canary.model)
    if path.stem not in files:
        files[path.stem] = path
    elif path.resolve() != files[path.stem].resolve():
        raise SetupError(f"Two models are called {path.stem}; jobs could not distinguish them.")
    if path.stem == next(iter(files)):
        raise SetupError(f"--canary names {path.stem}, which is the default model already; name another.")
    if room < 2:
        raise SetupError("--canary needs two models in memory; set --resident-models to 2 or more.")
    return replace(canary, model=path.stem)
