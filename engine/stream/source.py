"""A source over a Kafka topic: parses jobs, reads their images, and lets finished ones be committed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import TypeAlias

from engine.errors import SkipImage
from engine.flow import Background
from engine.observe.health import Health
from engine.observe.metrics import Metrics
from engine.observe.tracing import PROPAGATED, StageTimes, Tracer
from engine.options import Options
from engine.records import Failed, Outcome, Record
from engine.stream.canary import Canary
from engine.stream.config import KafkaSourceConfig
from engine.stream.connection import Connection
from engine.stream.crashes import CrashJournal
from engine.stream.inputs import Inputs, SourceUnavailable
from engine.stream.jobs import JobState, job_state, parse_job, read_id
from engine.stream.member import GroupMember
from engine.stream.read_memory import NeedsMemory, ReadMemory
from engine.stream.reads import ReadShares
from engine.stream.waiting import WaitingJobs
from engine.system.retry import retried

log = logging.getLogger(__name__)

_ALONE_POLL_S = 0.05
_TICK_S = 1.0
"""How long to wait for a job before yielding a tick."""
_Reads: TypeAlias = Background[JobState, Record[bytes] | Failed | JobState | None]
"""Jobs being prepared in threads of their own."""


class KafkaSource:
    """Yields the jobs of a topic, each until it is acknowledged by some member of its group."""

    def __init__(
        self,
        connection: Connection,
        config: KafkaSourceConfig,
        inputs: Inputs,
        defaults: Options,
        models: Mapping[str, str],
        answered: Callable[[JobState], bool],
        metrics: Metrics,
        health: Health,
        note: Callable[[], str] = lambda: "",
        journal: CrashJournal | None = None,
        canary: Canary | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """`models` maps the name of each model that jobs may use to its hash.

        `answered` is called for each job whose image has been read; True means that its result exists from an earlier
        delivery and has been sent again. `note` returns what is committed beside each offset.
        `journal` counts in how many crashes of workers each job was in progress. `canary` takes a share of the jobs
        that name no model; its own model is one of `models`.
        """
        self._canary = canary
        self._tracer = tracer
        self._journal = journal
        self._config = config
        self._inputs = inputs
        self._defaults = defaults
        self._models = models
        self._answered = answered
        self._metrics = metrics
        self._member = GroupMember(
            connection, config, metrics, health, note, lambda: None if journal is None else journal.refresh()
        )
        self._waiting = WaitingJobs(metrics, health)
        # In a half of the jobs in flight, so that those of one slow origin never stop the fetching.
        self._shares = ReadShares(max(1, min(config.readers, config.max_in_flight // 2)))
        self._memory = ReadMemory(config.read_bytes, config.readers)

    def start(self) -> None:
        """Join the group; raises `SetupError` when the brokers cannot be reached."""
        self._member.start()

    def stop(self) -> None:
        """Fetch and begin nothing more; `records` ends. Safe to call from a signal handler, and more than once."""
        self._member.stop()

    def close(self, timeout_s: float, *, abandon: bool = False) -> bool:
        """Commit, leave the group, and return whether that completed within `timeout_s`.

        With `abandon`, begun jobs are not waited for: another member will do them again.
        """
        return self._member.close(timeout_s, abandon=abandon)

    @property
    def is_busy(self) -> bool:
        """Whether jobs have begun and not finished, apart from those that wait for their input root."""
        return self._member.num_begun > 0

    def records(self) -> Iterator[Record[bytes] | Failed | None]:
        """Iterate over jobs with their images until `stop`; raises `StopRun` when the topic is lost.

        Ends at once on `stop`: jobs fetched and not begun, and jobs that wait for their input root, are left to the
        next owner of their partition.
        """
        with closing(Background(self._prepared, self._config.readers, "fetch", self._member.wake)) as reads:
            for job in self._jobs(reads):
                if job is not None:
                    yield from self._begin(job, reads)
                elif not reads.has_results:
                    yield None
                for item in reads.results():
                    yield from self._delivered(item)

    def checkpoint(self) -> None:
        """Commit the offsets of what has finished."""
        self._member.commit_now()

    def acknowledge(self, outcome: Outcome) -> None:
        """Let the watermark pass this job; it is committed within about a second."""
        job = job_state(outcome)
        if self._journal is not None:
            self._journal.end(job.message)
        self._queue_again(self._memory.leave(job))
        self._member.finish(job)
        seconds = max(0.0, time.time() - job.message.timestamp_s)
        end = "failed" if isinstance(outcome, Failed) else "done"
        trace_id = self._trace(job, outcome)
        self._metrics.observe("job_seconds", seconds, job.model, end, trace_id=trace_id)

    def _trace(self, job: JobState, outcome: Outcome | None = None) -> str:
        """Make the spans of a job that has ended, answered from a receipt if without `outcome`; return its trace id."""
        if self._tracer is None or job.stages is None:
            return ""
        message = job.message
        failed = outcome if isinstance(outcome, Failed) else None
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": message.topic,
            "messaging.destination.partition.id": str(message.partition),
            "messaging.kafka.offset": message.offset,
            "messaging.consumer.group.name": self._config.group,
            "solstice.job.id": job.id,
            "solstice.model": job.model,
            "solstice.outcome": "failed" if failed else "done" if outcome else "duplicate",
            **({"error.type": failed.stage} if failed else {}),
        }
        headers = {name: value.decode("utf-8", "replace") for name, value in message.headers if name in PROPAGATED}
        stages = job.stages.complete(int(job.fetched_s * 1e9))
        reason = failed.reason if failed else None
        return self._tracer.job(f"process {message.topic}", stages, headers, attributes, reason)

    def _jobs(self, reads: _Reads) -> Iterator[JobState | None]:
        """Yield jobs to begin, and None when there are results of `reads` or for a while nothing at all.

        Ends once the worker stops and `reads` is empty.
        """
        while not self._member.stopping or not reads.is_empty:
            job = self._next_job(reads)
            if job is not None and self._crashes(job) >= self._config.max_crashes:
                yield from self._alone(job)
            else:
                self._queue_again([] if job else [*self._shares.ready(), *self._memory.ready()])
                yield job
        self._member.raise_error()

    def _next_job(self, reads: _Reads) -> JobState | None:
        """Wait for a job, for results of `reads`, or for a while."""
        timeout_s = min(_TICK_S, self._waiting.due_in() or _TICK_S)
        if self._member.stopping or reads.is_full:
            self._member.wait(lambda: reads.has_results, timeout_s)
            return None
        return self._waiting_job() or self._member.next_job(timeout_s, unless=lambda: reads.has_results)

    def _begin(self, state: JobState, reads: _Reads) -> Iterator[Record[bytes] | Failed]:
        """Parse a job and prepare it, in another thread if it has to wait for a store or a server."""
        if state.job is None:
            if self._tracer is not None:
                state.stages = StageTimes(time.time_ns())
            try:
                self._parse(state)
            except SkipImage as error:
                yield _failed(state, "job", error)
                return
        job = state.job
        if job is not None and job.inline and job.data is not None:
            yield from self._delivered(self._prepared(state))
        else:
            reads.submit(state)

    def _delivered(self, item: Record[bytes] | Failed | JobState | None) -> Iterator[Record[bytes] | Failed]:
        """Yield what the pipeline should process; a job that is answered already ends here."""
        if isinstance(item, JobState):
            self._trace(item)
            self._queue_again(self._memory.leave(item))
            self._member.finish(item)
        elif item is not None:
            yield item

    def _crashes(self, job: JobState) -> int:
        return 0 if self._journal is None else self._journal.suspicion(job.message).crashes

    def _alone(self, job: JobState) -> Iterator[JobState | None]:
        """Yield a job after all others have finished and been committed, and nothing more until it has finished."""
        log.warning("Job %s was in progress in %d crashes of workers; it goes alone", job.id, self._crashes(job))
        self._metrics.count("crash_suspects_total")
        yield from self._until_begun(1)
        if self._member.stopping:
            return
        self._member.commit_now()
        job.alone = True
        yield job
        yield from self._until_begun(0)

    def _until_begun(self, most: int) -> Iterator[None]:
        """Yield ticks until at most so many jobs are in progress."""
        while self._member.num_begun > most and not self._member.stopping:
            time.sleep(_ALONE_POLL_S)
            yield None

    def _queue_again(self, jobs: Iterable[JobState]) -> None:
        """Queue jobs that waited for others from their origin; those of partitions that have gone are dropped."""
        for job in jobs:
            if not self._member.queue_again(job):
                self._waiting.drop(job)

    def _waiting_job(self) -> JobState | None:
        """Return a job whose input root is to be tried again now, if there is one."""
        job = self._waiting.take_due()
        if job is None or self._member.resume(job):
            return job
        self._waiting.drop(job)
        return None

    def _prepared(self, state: JobState) -> Record[bytes] | Failed | JobState | None:
        """Return a record of the job with its image, the job itself when it is answered already, or None if it waits.

        Runs in several threads.
        """
        try:
            data = self._read_in_turn(state)
        except SkipImage as error:
            self._waiting.drop(state)
            return _failed(state, "read", error)
        if data is None:
            return None
        job = state.job
        assert job is not None
        try:
            self._note_begun(state)
        except SkipImage as error:
            return _failed(state, "crash", error)
        if not job.inline:  # only stored results are named by it and looked up again
            state.digest = job.digest(data, state.model_sha256)
        if self._answered(state):
            if self._journal is not None:
                self._journal.end(state.message)
            return state
        return Record(key=state.id, payload=data, options=job.options, origin=state, timings=state.timings)

    def _note_begun(self, state: JobState) -> None:
        """Write into the journal that a job is in progress; raises `SkipImage` if it was in a crash, alone."""
        if self._journal is None:
            return
        suspicion = self._journal.suspicion(state.message)
        if suspicion.alone:
            raise SkipImage(
                f"{suspicion.crashes} workers crashed while this job was in progress, the last one with no other"
            )
        self._journal.begin(state.message, alone=state.alone)

    def _parse(self, state: JobState) -> None:
        """Parse the message of a job; raises `SkipImage` when it is not valid."""
        message = state.message
        if message.undecodable:
            raise SkipImage(message.undecodable)
        try:
            job = parse_job(message.value, message.key, message.position, self._defaults_of)
        except SkipImage:
            state.id = read_id(message.value, message.key, message.position)
            raise
        state.id = job.id
        if job.options.model not in self._models:
            raise SkipImage(f"unknown model {job.options.model[:100]!r}; known: {', '.join(self._models)}")
        state.model_sha256 = self._models[job.options.model]
        state.job = job

    def _defaults_of(self, id: str) -> Options:
        if self._canary is not None and self._canary.takes(id):
            return replace(self._defaults, model=self._canary.model)
        return self._defaults

    def _read_in_turn(self, state: JobState) -> bytes | None:
        """Return the image of a job; None when it waits for its input root, other reads from its origin, or memory."""
        job = state.job
        assert job is not None
        if job.data is not None:
            return job.data
        assert job.source is not None, "required by the schema"
        origin = self._inputs.origin_of(job.source)
        if not self._shares.enter(origin, state, before_waiting=self._member.park):
            return None
        data = None
        try:
            data = self._read_when_there_is_memory(state, job.source)
            if data is not None:
                self._queue_again(self._memory.keep(state, len(data)))
            return data
        finally:
            self._queue_again(self._shares.leave(origin))
            if data is None:
                self._queue_again(self._memory.leave(state))

    def _read_when_there_is_memory(self, state: JobState, source: str) -> bytes | None:
        """Read the image of a job; None when it waits for its input root, or for memory.

        What it takes of the memory is given back by `_read_in_turn` without an image, or else when the job ends.
        """
        while not state.needs_bytes or self._memory.enter(state, before_waiting=self._member.park):
            try:
                return self._read(state, source, state.needs_bytes or self._memory.small_bytes)
            except NeedsMemory as error:
                self._queue_again(self._memory.leave(state))
                state.needs_bytes = error.num_bytes
        return None

    def _read(self, state: JobState, source: str, now_bytes: int) -> bytes | None:
        """Read the image of a job; None when its input root does not answer and the job waits for it.

        Raises `NeedsMemory` when it is larger than `now_bytes` and no more memory is free.
        """
        started_s = time.perf_counter()

        def more(num_bytes: int) -> bool:
            return self._memory.take(state, num_bytes)

        def again(error: Exception) -> None:
            if isinstance(error, SourceUnavailable):
                raise error
            state.attempts += 1
            self._metrics.count("retries_total", 1.0, "read")
            log.warning("Reading the image of a job failed, trying again: %s", error)

        try:
            data, root = retried(lambda: self._inputs.read_from(source, now_bytes, more), OSError, again)
        except SourceUnavailable as error:
            self._member.park(state)
            try:
                self._waiting.add(state, error)
            except SkipImage:
                self._member.resume(state)
                raise
            return None
        except OSError as error:
            raise SkipImage(f"source cannot be read after {state.attempts} attempts: {error}") from error
        finally:
            state.read_s += time.perf_counter() - started_s
            if state.stages is not None:
                state.stages["read"] = state.read_s
        self._waiting.served(state, root)
        return data


def _failed(state: JobState, stage: str, error: SkipImage) -> Failed:
    return Failed(key=state.id, stage=stage, reason=str(error), origin=state, timings=state.timings)
