"""One member of a consumer group: polls, pauses, commits, and drains in rebalances.

A thread of its own does nothing but poll, because kafka-python loses a join that completes between two calls of `poll`.
Other threads take jobs from the queue and report finished ones under one lock. The committed offset is the low
watermark of each partition: everything below it has finished.

When partitions are revoked, no job begins any more, begun jobs are waited for (bounded), and the watermark is committed
before the partitions are given up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kafka import AsyncConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.errors import AuthorizationError, FencedInstanceIdError, KafkaError

from engine.errors import StopRun
from engine.observe.health import Health
from engine.observe.metrics import Metrics
from engine.stream.client import UndecodableBatch, close_member, make_consumer, poll_member, rebalance_sleep, topic_id
from engine.stream.config import KafkaSourceConfig
from engine.stream.connection import Connection
from engine.stream.jobs import JobState, Message
from engine.stream.lag import LagMeter
from engine.stream.partitions import Assignment, Where

log = logging.getLogger(__name__)

POLL_S = 0.2
"""Time-out of one poll; with less, kafka-python may never join its group."""
IDLE_POLL_S = 1.0
"""Time-out of one poll while no job is in flight, so that nothing has to be resumed."""
TOPIC_GONE_S = 30.0
"""How long the jobs topic may be missing before the worker stops."""
_COMMIT_EVERY_S = 1.0
_POSITION_MS = 500
_FINISH_S = 60.0
"""How long jobs in flight may take after an error that stops fetching."""
_DRAIN_POLL_S = 0.02
_LEAVE_TIMEOUT_MS = 5000


class GroupMember:
    """Fetches jobs of one topic and commits those that have finished; safe for several threads."""

    def __init__(
        self,
        connection: Connection,
        config: KafkaSourceConfig,
        metrics: Metrics,
        health: Health,
        note: Callable[[], str],
        before_assignment: Callable[[], object],
    ) -> None:
        """`note` returns what is committed beside each offset, for the next worker of the group.

        `before_assignment` is called before jobs of newly assigned partitions may begin.
        """
        self._before_assignment = before_assignment
        self._connection = connection
        self._note = note
        self._config = config
        self._metrics = metrics
        self._health = health
        self._changed = threading.Condition()
        self._assignment = Assignment(config)  # guarded by `_changed`
        self._stopping = threading.Event()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._commit_requested = threading.Event()
        self._committed = threading.Event()
        self._error: Exception | None = None
        self._fenced = False
        self._failing: StopRun | None = None
        self._failing_since_s = 0.0
        self._consumer: Any = None
        self._topic_seen_s = 0.0
        self._topic_id: object = None
        self._is_joined = False
        self._start_positions: dict[Where, int] = {}  # guarded by `_changed`
        self._lag = LagMeter(connection, self.positions, metrics, health, config.lag_every_s)
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
        self._consumer.subscribe([config.topic], listener=_RebalanceListener(self))
        self._joined(False)
        self._health.expect("assignment", config.unassigned_s)
        self._thread.start()
        self._lag.start()

    def stop(self) -> None:
        """Fetch and begin nothing more. Safe to call from a signal handler, and more than once."""
        self._stopping.set()

    def close(self, timeout_s: float, *, abandon: bool = False) -> bool:
        """Commit, leave the group, and return whether that completed within `timeout_s`.

        With `abandon`, begun jobs are not waited for: another member will do them again.
        """
        self._stopping.set()
        if abandon:
            self._abandoned.set()
        self._closing.set()
        self._lag.close()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ---- jobs, for other threads ----

    @property
    def stopping(self) -> bool:
        """Whether no job begins any more, because of `stop` or of an error."""
        return self._stopping.is_set()

    @property
    def num_begun(self) -> int:
        """Jobs that have begun and are neither finished nor parked."""
        with self._changed:
            return self._assignment.num_begun(self._assignment.owned)

    def raise_error(self) -> None:
        """Raise what has ended the poll thread, if anything has; `StopRun` when the topic is lost."""
        if self._error is not None:
            raise self._error

    def next_job(self, timeout_s: float, unless: Callable[[], bool]) -> JobState | None:
        """Wait for a job and begin it; None when none can begin within `timeout_s`, or before `unless` holds.

        `wake` makes it look at `unless` again.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.stopping or self._assignment.has_next or unless(), timeout_s)
            return None if self.stopping else self._assignment.begin()

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `condition` holds, for `timeout_s` at most; `wake` makes it look again."""
        with self._changed:
            self._changed.wait_for(condition, timeout_s)

    def wake(self) -> None:
        """Let a thread that waits in `next_job` or `wait` look again."""
        with self._changed:
            self._changed.notify_all()

    def park(self, job: JobState) -> None:
        """Set a begun job aside until `resume`, so that no rebalance waits for it."""
        with self._changed:
            self._assignment.park(job)

    def resume(self, job: JobState) -> bool:
        """Begin a parked job again; False when its partition has gone to another member."""
        with self._changed:
            self._changed.wait_for(lambda: self.stopping or not self._assignment.draining)
            return self._assignment.resume(job)

    def queue_again(self, job: JobState) -> bool:
        """Let `next_job` return a parked job again; False when its partition has gone to another member."""
        with self._changed:
            queued = self._assignment.queue_again(job)
            self._changed.notify_all()
            return queued

    def commit_now(self, timeout_s: float = 5.0) -> bool:
        """Commit what has finished; returns whether that was done within `timeout_s`."""
        self._committed.clear()
        self._commit_requested.set()
        return self._committed.wait(timeout_s)

    def finish(self, job: JobState) -> None:
        """Let the watermark pass this job; it is committed within about a second."""
        with self._changed:
            self._assignment.finish(job)

    def positions(self) -> dict[Where, int]:
        """Return the first unfinished offset of each assigned partition, where it is known."""
        with self._changed:
            watermarks = self._assignment.watermarks()
            known = {where: self._start_positions.get(where) if w is None else w for where, w in watermarks.items()}
        return {where: position for where, position in known.items() if position is not None}

    # ---- the poll thread ----

    def _poll_until_closed(self) -> None:
        self._topic_seen_s = committed_s = time.monotonic()
        try:
            while not self._closing.is_set():
                self._poll()
                self._health.beat("poll")
                if self._is_joined or not self._lag.reachable:
                    self._health.beat("assignment")
                self._pause_or_resume()
                self._stop_when_finished()
                self._require_topic()
                if self._commit_requested.is_set():
                    self._commit_requested.clear()
                    self._commit_and_wait()
                if time.monotonic() - committed_s >= _COMMIT_EVERY_S:
                    committed_s = time.monotonic()
                    self._commit_soon()
                    self._note_start_positions()
        except Exception as error:  # noqa: BLE001 (raised again by `raise_error`)
            self._error = self._explained(error)
            self._stopping.set()
        finally:
            self._leave()

    def _poll(self) -> None:
        try:
            timeout_s = POLL_S if self._assignment.num_in_flight else IDLE_POLL_S
            self._take(poll_member(self._consumer, int(timeout_s * 1000)))
        except (AuthorizationError, FencedInstanceIdError):
            raise
        except UndecodableBatch as error:
            self._handle_undecodable(error)
        except KafkaError as error:
            log.warning("Kafka: %s", error)
            time.sleep(0.5)

    def _take(self, fetched: Mapping[TopicPartition, Iterable[Any]]) -> None:
        now_s = time.time()
        with self._changed:
            for messages in fetched.values():
                for raw in messages:
                    self._assignment.take(_message(raw, now_s), now_s)
            self._changed.notify_all()  # also for those that wait while `stop` was called

    def _handle_undecodable(self, error: UndecodableBatch) -> None:
        """Replace an undecodable batch by one job that fails, or stop once the jobs before it have finished."""
        if self._config.skip_undecodable and error.after is not None:
            log.error("Skipping messages that cannot be decoded: %s", error)
            now_s = time.time()
            reason = f"cannot be decoded: {error}"
            message = Message(error.topic, error.partition, error.after - 1, now_s, None, b"", undecodable=reason)
            with self._changed:
                self._assignment.take(message, now_s)
                self._changed.notify_all()
            self._consumer.seek(TopicPartition(error.topic, error.partition), error.after)
            return
        if self._failing is None:
            log.error("Messages cannot be decoded; the worker stops after the jobs before them: %s", error)
            advice = (
                "correct the producer or the topic, or turn such messages into dead letters with --skip-undecodable"
            )
            self._failing = StopRun(f"Messages cannot be decoded: {error}; {advice}.")
            self._failing_since_s = time.monotonic()

    def _stop_when_finished(self) -> None:
        """Raise what has stopped the fetching once the jobs that were fetched before have finished."""
        if self._failing is None:
            return
        with self._changed:
            left = self._assignment.num_queued or self._assignment.num_begun(self._assignment.owned)
        if not left or time.monotonic() - self._failing_since_s > _FINISH_S:
            raise self._failing

    def _explained(self, error: Exception) -> Exception:
        if isinstance(error, FencedInstanceIdError):
            self._fenced = True
            return StopRun(
                f"Another worker has joined under the name {self._config.instance}; give each its own --instance."
            )
        if isinstance(error, AuthorizationError):
            return StopRun(f"This worker may no longer read {self._config.topic}: {error}.")
        return error

    def _require_topic(self) -> None:
        """Detect a topic that was deleted or created anew, which kafka-python does not report."""
        id = topic_id(self._consumer, self._config.topic)
        if id is not None and id != self._topic_id:
            if self._topic_id is not None:
                self._restart_topic()
            self._topic_id = id
        if self._consumer.partitions_for_topic(self._config.topic):
            self._topic_seen_s = time.monotonic()
        elif time.monotonic() - self._topic_seen_s > TOPIC_GONE_S:
            raise StopRun(f"The topic {self._config.topic} is gone; create it again and start the worker.")

    def _restart_topic(self) -> None:
        """Read from the start: offsets reached in an earlier topic of this name would skip jobs."""
        log.warning("The topic %s was created anew; its jobs are read from the start", self._config.topic)
        with self._changed:
            self._assignment.restart()
        if self._consumer.assignment():
            self._consumer.seek_to_beginning()

    def _pause_or_resume(self) -> None:
        consumer = self._consumer
        assigned, paused = consumer.assignment(), consumer.paused()
        with self._changed:
            wanted = self._assignment.to_pause(assigned, paused, stopping=self.stopping or self._failing is not None)
            self._measure(len(wanted))
        if wanted - paused:
            consumer.pause(*(wanted - paused))
        if paused - wanted:
            consumer.resume(*(paused - wanted))

    def _measure(self, num_paused: int) -> None:
        gauge, assignment = self._metrics.gauge, self._assignment
        oldest_s = assignment.oldest_timestamp_s
        gauge("last_poll_timestamp_seconds", time.time())
        gauge("paused_partitions", num_paused)
        gauge("queue_jobs", assignment.num_queued, "fetched")
        gauge("queue_jobs", assignment.num_in_flight - assignment.num_queued, "pipeline")
        gauge("in_flight_jobs", assignment.num_in_flight)
        gauge("in_flight_bytes", assignment.in_flight_bytes)
        gauge("oldest_job_seconds", 0.0 if oldest_s is None else max(0.0, time.time() - oldest_s))

    def _commit_soon(self) -> None:
        """Start a commit of what has moved."""
        # Only the answer to a commit reveals that another member has joined under the same stable name.
        offsets = self._uncommitted(include_unmoved=self._config.instance is not None)
        if offsets:
            self._consumer.commit_async(offsets, self._note_committed)

    def _note_start_positions(self) -> None:
        """Remember where partitions start of which no job has been taken yet, for their lag."""
        with self._changed:
            watermarks = self._assignment.watermarks()
            unknown = [w for w, mark in watermarks.items() if mark is None and w not in self._start_positions]
        assigned = self._consumer.assignment()
        positions = {
            where: position
            for where in unknown
            if where in assigned
            and (position := self._consumer.position(TopicPartition(*where), timeout_ms=_POSITION_MS)) is not None
        }
        with self._changed:
            self._start_positions = {
                where: position
                for where, position in {**self._start_positions, **positions}.items()
                if where in watermarks
            }

    def _commit_and_wait(self) -> None:
        offsets = self._uncommitted()
        try:
            if offsets:
                self._consumer.commit(offsets, timeout_ms=_LEAVE_TIMEOUT_MS)
                self._note_committed(offsets, None)
        except KafkaError as error:
            self._note_committed(offsets, error)
        else:
            self._committed.set()

    def _uncommitted(self, *, include_unmoved: bool = False) -> dict[TopicPartition, OffsetAndMetadata]:
        with self._changed:
            offsets = self._assignment.uncommitted(include_unmoved=include_unmoved)
        note = self._note()
        return {TopicPartition(*where): OffsetAndMetadata(offset, note, -1) for where, offset in offsets.items()}

    def _note_committed(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], answer: object) -> None:
        failed = isinstance(answer, Exception)
        self._metrics.count("commits_total", 1.0, "failed" if failed else "done")
        if failed:
            log.info("A commit failed and will be repeated: %s", answer)
            return
        with self._changed:
            self._assignment.note_committed({where: offset.offset for where, offset in offsets.items()})

    def _leave(self) -> None:
        """Commit for the last time and leave the group, so that others take over at once."""
        try:
            offsets = self._uncommitted(include_unmoved=True)  # for the note beside the offsets
            if offsets and not self._fenced:  # the partitions are those of the other member
                self._consumer.commit(offsets, timeout_ms=_LEAVE_TIMEOUT_MS)
                self._note_committed(offsets, None)
        except Exception as error:  # noqa: BLE001 (another member does the rest again)
            log.warning("The last commit failed; some jobs will be delivered again: %s", error)
        try:
            close_member(self._consumer, _LEAVE_TIMEOUT_MS)
        except Exception as error:  # noqa: BLE001 (the session times out instead)
            log.warning("Leaving the group failed; its other members wait for the session to time out: %s", error)

    # ---- rebalances, in kafka-python's own thread ----

    async def revoke(self, revoked: set[Where]) -> None:
        """Begin nothing new, wait for begun jobs, commit; the partitions may go or come back."""
        self._metrics.count("rebalances_total", 1.0, "revoked")
        with self._changed:
            self._assignment.draining = True
        until_s = time.monotonic() + self._config.drain_s
        while self._num_begun(revoked) and time.monotonic() < until_s and not self._abandoned.is_set():
            self._health.beat("poll")  # the poll thread waits for this rebalance
            await rebalance_sleep(self._consumer, _DRAIN_POLL_S)
        offsets = self._uncommitted()
        if offsets:
            try:
                await self._consumer.commit_async(offsets)
            except KafkaError as error:
                self._note_committed(offsets, error)
            else:
                self._note_committed(offsets, None)
        self._joined(False)

    async def assign(self, assigned: set[Where]) -> None:
        """Continue with partitions that came back, and drop those that did not."""
        self._metrics.count("rebalances_total", 1.0, "assigned")
        self._before_assignment()
        with self._changed:
            self._assignment.assign(assigned)
            self._changed.notify_all()
        self._metrics.gauge("assigned_partitions", len(assigned))
        self._joined(True)
        log.info("Assigned partitions %s", sorted(partition for _, partition in assigned))

    async def lose(self, lost: set[Where]) -> None:
        """Drop everything: the group has continued without this member."""
        self._metrics.count("rebalances_total", 1.0, "lost")
        with self._changed:
            self._assignment.lose(lost)
        self._joined(False)
        log.warning("The group has continued without this worker; its jobs in flight will be done again elsewhere")

    def _num_begun(self, partitions: set[Where]) -> int:
        with self._changed:
            return self._assignment.num_begun(partitions)

    def _joined(self, joined: bool) -> None:
        self._is_joined = joined
        self._health.require("assigned", joined, f"joining the group {self._config.group}")


class _RebalanceListener(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python is untyped
    """Forwards kafka-python's calls as coroutines, the only form in which a rebalance may commit."""

    def __init__(self, member: GroupMember) -> None:
        self._member = member

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """See `GroupMember.revoke`."""
        await self._member.revoke(set(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """See `GroupMember.assign`."""
        await self._member.assign(set(assigned))

    async def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """See `GroupMember.lose`."""
        await self._member.lose(set(lost))


def _message(raw: Any, now_s: float) -> Message:
    return Message(
        topic=raw.topic,
        partition=raw.partition,
        offset=raw.offset,
        timestamp_s=raw.timestamp / 1000 if raw.timestamp and raw.timestamp > 0 else now_s,
        key=raw.key,
        value=raw.value or b"",
        headers=tuple((name, value or b"") for name, value in raw.headers),
    )
