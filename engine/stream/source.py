"""A source over a Kafka topic, as one member of a consumer group.

A thread of its own does nothing but poll, because kafka-python loses a join that ends between two calls of `poll`.
Everything else meets it at a queue: the threads that read images take jobs from there, and acknowledgements move
the offset trackers. What is committed is the low watermark of each partition: everything below it has ended.

    fetched ──queue──► begun ──pipeline──► ended          one lock guards all of it
                                             └─► tracker ──once a second──► commit

When partitions are taken away, nothing new is begun, what has begun is waited for (bounded), and the watermark is
committed; only then are they given up. Trackers outlive a partition's revocation until it is known who gets it, because
a partition that comes back goes on where its fetching stood.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kafka import AsyncConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.errors import AuthorizationError, FencedInstanceIdError, KafkaError

from engine.errors import SkipImage, StopRun
from engine.flow import in_threads
from engine.observe.health import Health
from engine.observe.metrics import Metrics
from engine.options import Options
from engine.records import Failed, Outcome, Record
from engine.stream.client import make_consumer
from engine.stream.config import KafkaSourceConfig
from engine.stream.connection import Connection
from engine.stream.inputs import Inputs
from engine.stream.jobs import JobState, Message, job_state, parse_job, read_id
from engine.stream.partitions import OffsetTracker
from engine.system.retry import retried

log = logging.getLogger(__name__)

POLL_S = 0.2
"""Time-out of one poll; with less, kafka-python may never join its group."""
_TICK_S = 0.02
_COMMIT_EVERY_S = 1.0
_TOPIC_GONE_S = 30.0


@dataclass(slots=True)
class _Partition:
    """State of one assigned partition."""

    epoch: int
    tracker: OffsetTracker
    begun: int = 0
    committed: int | None = None


class KafkaSource:
    """Gives the jobs of a topic, each until it is acknowledged somewhere in its group."""

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
    ) -> None:
        """`models` gives the hash of each model that jobs may name.

        `answered` is asked for each job whose image is read; True means that its result was there from an earlier
        delivery and has been sent again.
        """
        self._connection = connection
        self._config = config
        self._inputs = inputs
        self._defaults = defaults
        self._models = models
        self._answered = answered
        self._metrics = metrics
        self._health = health
        self._lock = threading.Condition()
        self._queue: deque[JobState] = deque()
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._owned: set[TopicPartition] = set()
        self._epochs = 0
        self._in_flight = 0
        self._in_flight_bytes = 0
        self._oldest: dict[int, float] = {}  # id(state) to time stamp, in the order of fetching
        self._draining = False
        self._stopping = threading.Event()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._error: Exception | None = None
        self._consumer: Any = None
        self._seen_s = 0.0
        self._topic_id: object = None
        self._thread = threading.Thread(target=self._poll_until_closed, name="poll", daemon=True)

    def start(self) -> None:
        """Join the group; raises `SetupError` when the brokers cannot be reached."""
        config = self._config
        self._consumer = make_consumer(
            self._connection,
            group_id=config.group,
            group_instance_id=config.instance,
            session_timeout_ms=int(config.session_timeout_s * 1000),
            heartbeat_interval_ms=int(min(3.0, config.session_timeout_s / 3) * 1000),
            max_poll_records=max(1, min(200, config.max_in_flight // 2)),
            fetch_max_wait_ms=int(config.fetch_wait_s * 1000),
            fetch_max_bytes=max(1 << 20, config.max_in_flight_bytes // 4),
            max_partition_fetch_bytes=max(1 << 20, config.max_in_flight_bytes // 16),
        )
        self._consumer.subscribe([config.topic], listener=_Listener(self))
        self._health.require("assigned", False)
        self._thread.start()

    def stop(self) -> None:
        """Fetch and begin nothing more; `records` ends. Safe to call from a signal handler, and more than once."""
        self._stopping.set()

    def close(self, timeout_s: float, *, abandon: bool = False) -> bool:
        """Commit, leave the group, and tell whether that worked within `timeout_s`.

        With `abandon` what has begun is not waited for: another member will do it again.
        """
        self._stopping.set()
        if abandon:
            self._abandoned.set()
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ---- for the pipeline ----

    def records(self) -> Iterator[Record[bytes] | Failed | None]:
        """Iterate over jobs with their images until `stop`; raises `StopRun` when the topic is lost.

        Ends at once on `stop`: jobs fetched and not begun are left to the next owner of their partition.
        """
        for item in in_threads(self._prepared, self._job_states(), self._config.readers, "fetch"):
            if isinstance(item, JobState):
                self._end(item)
            else:
                yield item

    def acknowledge(self, outcome: Outcome) -> None:
        """Let the watermark pass this job; it is committed within about a second."""
        state = job_state(outcome)
        self._end(state)
        self._metrics.observe("job_seconds", max(0.0, time.time() - state.message.timestamp_s))

    def _job_states(self) -> Iterator[JobState | None]:
        while not self._stopping.is_set():
            state = self._next()
            if state is None:
                yield None  # what is under way must not wait for company that does not come
                with self._lock:
                    self._lock.wait_for(lambda: self._queue and not self._draining, _TICK_S)
            else:
                yield state
        if self._error is not None:
            raise self._error

    def _next(self) -> JobState | None:
        with self._lock:
            if self._draining or not self._queue:
                return None
            state = self._queue.popleft()
            partition = self._partition_of(state)
            if partition is not None:
                partition.begun += 1
            return state

    def _prepared(self, state: JobState) -> Record[bytes] | Failed | JobState:
        """Turn a state into a record with its image, or into the state itself when it is answered already."""
        message, stage = state.message, "job"
        try:
            state.job = job = parse_job(message.value, message.key, message.position, self._defaults)
            state.id = job.id
            state.model_sha256 = self._sha256(job.options.model)
            stage = "read"
            data = self._read(state)
            if not job.inline:  # only what is stored is named by it and looked for again
                state.digest = job.digest(data, state.model_sha256)
        except SkipImage as error:
            if state.job is None:
                state.id = read_id(message.value, message.key, message.position)
            return Failed(key=state.id, stage=stage, reason=str(error), origin=state, timings=state.timings)
        if self._answered(state):
            return state
        return Record(key=state.id, payload=data, options=job.options, origin=state, timings=state.timings)

    def _sha256(self, model: str) -> str:
        if model not in self._models:
            raise SkipImage(f"unknown model {model[:100]!r}; known: {', '.join(self._models)}")
        return self._models[model]

    def _read(self, state: JobState) -> bytes:
        job = state.job
        assert job is not None
        if job.data is not None:
            return job.data
        source = job.source
        assert source is not None, "the schema asks for one"
        started_s = time.perf_counter()

        def again(error: Exception) -> None:
            state.attempts += 1
            self._metrics.count("retries_total", 1.0, "read")
            log.warning("Reading the image of a job failed, trying again: %s", error)

        try:
            return retried(lambda: self._inputs.read(source), OSError, again)
        except OSError as error:
            raise SkipImage(f"source cannot be read after {state.attempts} attempts: {error}") from error
        finally:
            state.read_s = time.perf_counter() - started_s

    # ---- bookkeeping, under the lock ----

    def _partition_of(self, state: JobState) -> _Partition | None:
        """Give the partition if it is still that of the state's time."""
        message = state.message
        partition = self._partitions.get(TopicPartition(message.topic, message.partition))
        return partition if partition is not None and partition.epoch == state.epoch else None

    def _end(self, state: JobState) -> None:
        with self._lock:
            self._forget(state)
            partition = self._partition_of(state)
            if partition is not None:
                partition.begun -= 1
                partition.tracker.finish(state.message.offset)

    def _forget(self, state: JobState) -> None:
        self._in_flight -= 1
        self._in_flight_bytes -= state.message.num_bytes
        del self._oldest[id(state)]

    def _take(self, fetched: Mapping[TopicPartition, Iterable[Any]]) -> None:
        now_s = time.time()
        with self._lock:
            for where, messages in fetched.items():
                for raw in messages:
                    self._take_one(where, raw, now_s)
            self._lock.notify_all()

    def _take_one(self, where: TopicPartition, raw: Any, now_s: float) -> None:
        message = Message(
            topic=raw.topic,
            partition=raw.partition,
            offset=raw.offset,
            timestamp_s=raw.timestamp / 1000 if raw.timestamp and raw.timestamp > 0 else now_s,
            key=raw.key,
            value=raw.value or b"",
            headers=tuple((name, value or b"") for name, value in raw.headers),
        )
        partition = self._partitions.get(where) or self._new(where)
        try:
            partition.tracker.take(message.offset)
        except ValueError:  # the topic was made anew, or its end was cut off: offsets begin again
            partition = self._new(where)
            partition.tracker.take(message.offset)
        state = JobState(
            message=message,
            epoch=partition.epoch,
            id=message.position,
            wait_s=max(0.0, now_s - message.timestamp_s),
        )
        self._queue.append(state)
        self._in_flight += 1
        self._in_flight_bytes += message.num_bytes
        self._oldest[id(state)] = message.timestamp_s

    def _new(self, where: TopicPartition) -> _Partition:
        self._epochs += 1
        self._partitions[where] = partition = _Partition(self._epochs, OffsetTracker())
        return partition

    def _drop(self, lost: Iterable[TopicPartition]) -> None:
        """Fence partitions: what is under way for them no longer moves their offset."""
        gone = set(lost)
        for where in gone:
            self._partitions.pop(where, None)
            self._metrics.gauge("lag_jobs", 0.0, str(where.partition))
        kept: deque[JobState] = deque()
        for state in self._queue:
            if TopicPartition(state.message.topic, state.message.partition) in gone:
                self._forget(state)
            else:
                kept.append(state)
        self._queue = kept

    # ---- the poll thread ----

    def _poll_until_closed(self) -> None:
        self._seen_s = committed_s = time.monotonic()
        try:
            while not self._closing.is_set():
                self._poll()
                self._health.beat("poll")
                self._pause_or_resume()
                self._require_topic()
                if time.monotonic() - committed_s >= _COMMIT_EVERY_S:
                    committed_s = time.monotonic()
                    self._commit_soon()
        except Exception as error:  # noqa: BLE001 (raised again where records are taken)
            self._error = self._explained(error)
            self._stopping.set()
        finally:
            self._leave()

    def _poll(self) -> None:
        try:
            self._take(self._consumer.poll(timeout_ms=int(POLL_S * 1000)))
        except (AuthorizationError, FencedInstanceIdError):
            raise
        except KafkaError as error:
            log.warning("Kafka: %s", error)
            time.sleep(0.5)

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, FencedInstanceIdError):
            return StopRun(
                f"Another worker has joined under the name {self._config.instance}; give each its own --instance."
            )
        if isinstance(error, AuthorizationError):
            return StopRun(f"This worker may no longer read {self._config.topic}: {error}.")
        return error

    def _require_topic(self) -> None:
        """Notice a topic that was deleted, or made anew, of which kafka-python says nothing."""
        id = self._consumer._cluster.topic_id(self._config.topic)  # there is no public way; None from old brokers
        if id is not None and id != self._topic_id:
            if self._topic_id is not None:
                self._begin_anew()
            self._topic_id = id
        if self._consumer.partitions_for_topic(self._config.topic):
            self._seen_s = time.monotonic()
        elif time.monotonic() - self._seen_s > _TOPIC_GONE_S:
            raise StopRun(f"The topic {self._config.topic} is gone; make it again and start the worker.")

    def _begin_anew(self) -> None:
        """Take jobs from the start: the offsets reached in a topic of that name that is gone would skip some."""
        log.warning("The topic %s was made anew; its jobs are taken from the start", self._config.topic)
        with self._lock:
            self._drop(set(self._partitions))
        if self._consumer.assignment():
            self._consumer.seek_to_beginning()

    def _pause_or_resume(self) -> None:
        consumer, config = self._consumer, self._config
        assigned, paused = consumer.assignment(), consumer.paused()
        with self._lock:
            everything = bool(paused) and paused == assigned
            share = 0.5 if everything else 1.0  # hysteresis
            full = (
                self._in_flight >= config.max_in_flight * share
                or self._in_flight_bytes >= config.max_in_flight_bytes * share
                or self._stopping.is_set()
            )
            wanted = {
                where
                for where in assigned
                if full or (where in self._partitions and self._partitions[where].tracker.gap >= config.max_gap)
            }
            oldest_s = next(iter(self._oldest.values()), None)
            self._measure(len(wanted), oldest_s)
        if wanted - paused:
            consumer.pause(*(wanted - paused))
        if paused - wanted:
            consumer.resume(*(paused - wanted))

    def _measure(self, paused: int, oldest_s: float | None) -> None:
        gauge = self._metrics.gauge
        gauge("last_poll_timestamp_seconds", time.time())
        gauge("paused_partitions", paused)
        gauge("queue_jobs", len(self._queue), "fetched")
        gauge("queue_jobs", self._in_flight - len(self._queue), "pipeline")
        gauge("in_flight_jobs", self._in_flight)
        gauge("in_flight_bytes", self._in_flight_bytes)
        gauge("oldest_job_seconds", 0.0 if oldest_s is None else max(0.0, time.time() - oldest_s))

    def _uncommitted(self, *, unmoved: bool = False) -> dict[TopicPartition, OffsetAndMetadata]:
        with self._lock:
            offsets = {}
            for where in self._owned:
                partition = self._partitions.get(where)
                watermark = partition.tracker.watermark if partition else None
                if partition and watermark is not None and (unmoved or watermark != partition.committed):
                    offsets[where] = OffsetAndMetadata(watermark, "", -1)
            return offsets

    def _note_committed(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], answer: object) -> None:
        failed = isinstance(answer, Exception)
        self._metrics.count("commits_total", 1.0, "failed" if failed else "done")
        if failed:
            log.info("A commit failed and will be repeated: %s", answer)
            return
        with self._lock:
            for where, offset in offsets.items():
                if where in self._partitions:
                    self._partitions[where].committed = offset.offset

    def _commit_soon(self) -> None:
        """Start a commit of what has moved, and measure the lag."""
        # Only the answer to a commit tells a member by a stable name that another one has come in its place.
        offsets = self._uncommitted(unmoved=self._config.instance is not None)
        if offsets:
            self._consumer.commit_async(offsets, self._note_committed)
        with self._lock:
            owned = {where: self._partitions.get(where) for where in self._owned}
        for where, partition in owned.items():
            high = self._consumer.highwater(where)
            if high is not None and partition is not None and partition.tracker.watermark is not None:
                self._metrics.gauge("lag_jobs", max(0, high - partition.tracker.watermark), str(where.partition))

    def _leave(self) -> None:
        """Commit for the last time and tell the group, so that others take over at once."""
        try:
            offsets = self._uncommitted()
            if offsets and not self._abandoned.is_set():
                self._consumer.commit(offsets, timeout_ms=5000)
                self._note_committed(offsets, None)
        except Exception as error:  # noqa: BLE001 (another member does the rest again)
            log.warning("The last commit failed, some jobs will be delivered again: %s", error)
        try:
            self._consumer.close(autocommit=False, timeout_ms=5000)
        except Exception as error:  # noqa: BLE001 (the session times out instead)
            log.warning("The group could not be told: %s", error)

    # ---- rebalances, in kafka-python's own thread ----

    async def revoke(self, revoked: set[TopicPartition]) -> None:
        """Begin nothing new, wait for what has begun, commit; the partitions may go or come back."""
        self._metrics.count("rebalances_total", 1.0, "revoked")
        with self._lock:
            self._draining = True
        until_s = time.monotonic() + self._config.drain_s
        while self._begun(revoked) and time.monotonic() < until_s and not self._abandoned.is_set():
            self._health.beat("poll")  # the poll thread waits for this, and is not stuck
            await self._consumer._coordinator._net.sleep(0.02)  # the loop has no public way to sleep
        offsets = self._uncommitted()
        if offsets:
            try:
                await self._consumer.commit_async(offsets)
            except KafkaError as error:
                self._note_committed(offsets, error)
            else:
                self._note_committed(offsets, None)

    async def assign(self, assigned: set[TopicPartition]) -> None:
        """Go on with what came back, give up what did not."""
        self._metrics.count("rebalances_total", 1.0, "assigned")
        with self._lock:
            self._drop(set(self._partitions) - assigned)
            self._owned = set(assigned)
            self._draining = False
            self._lock.notify_all()
        self._metrics.gauge("assigned_partitions", len(assigned))
        self._health.require("assigned", True)
        log.info("Assigned partitions %s", sorted(where.partition for where in assigned))

    async def lose(self, lost: set[TopicPartition]) -> None:
        """Give up everything: the group has gone on without this member."""
        self._metrics.count("rebalances_total", 1.0, "lost")
        with self._lock:
            self._drop(lost)
            self._owned -= lost
            self._draining = False
        self._health.require("assigned", False)
        log.warning("The group went on without this worker; its jobs under way will be done again elsewhere")

    def _begun(self, partitions: set[TopicPartition]) -> int:
        with self._lock:
            begun = Counter({where: state.begun for where, state in self._partitions.items()})
        return sum(begun[where] for where in partitions)


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python is untyped
    """Passes kafka-python's calls on; a coroutine, because only there may a rebalance commit."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """See `KafkaSource.revoke`."""
        await self._source.revoke(set(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """See `KafkaSource.assign`."""
        await self._source.assign(set(assigned))

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """See `KafkaSource.lose`."""
        await self._source.lose(set(lost))
