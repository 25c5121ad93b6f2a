"""Bookkeeping of the partitions assigned to one member of a consumer group.

Pure data structures: no threads, no locks, no Kafka client. `engine.stream.member` drives them under one lock.

    fetched ──► queue ──► begun ──► finished ──► watermark ──► committed
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from engine.stream.config import WAITING_SHARE, KafkaSourceConfig
from engine.stream.jobs import JobState, Message

Where = tuple[str, int]
"""Topic and partition; equal to kafka-python's `TopicPartition`."""

_RESUME_SHARE = 0.5
"""Share of a limit at which fetching resumes after everything was paused (hysteresis)."""


class OffsetTracker:
    """Low watermark of one partition: every job below it has finished.

    Offsets must be taken in rising order. Gaps are allowed, because compaction and transactions leave some.
    """

    def __init__(self) -> None:
        self._unfinished: OrderedDict[int, None] = OrderedDict()  # rising, as taken
        self._next: int | None = None

    def take(self, offset: int) -> None:
        """Add the job at `offset`; raises `ValueError` when it is not above the last one."""
        if self._next is not None and offset < self._next:
            raise ValueError(f"offset {offset} comes after {self._next - 1}")
        self._unfinished[offset] = None
        self._next = offset + 1

    def finish(self, offset: int) -> None:
        """Mark the job at `offset` as finished; raises `KeyError` when it is not in flight."""
        del self._unfinished[offset]

    @property
    def watermark(self) -> int | None:
        """Offset to commit: that of the first unfinished job, or the one after the last; None before the first."""
        return next(iter(self._unfinished), self._next)

    @property
    def gap(self) -> int:
        """Offsets between the watermark and the last job taken, which are delivered again after a crash."""
        watermark = self.watermark
        return 0 if watermark is None or self._next is None else self._next - watermark


@dataclass(slots=True)
class PartitionState:
    """State of one assigned partition."""

    epoch: int
    """Number of this assignment; jobs of earlier ones no longer move the watermark."""
    tracker: OffsetTracker = field(default_factory=OffsetTracker)
    num_begun: int = 0
    """Jobs that have left the queue and are not finished."""
    committed: int | None = None
    """Offset of the last successful commit of this assignment."""


class Assignment:
    """Jobs in flight, and how far each assigned partition may be committed.

    A partition's state outlives its revocation until the next assignment is known: with eager rebalances a partition
    that comes back continues at its fetch position. Not safe for several threads at once.
    """

    def __init__(self, config: KafkaSourceConfig) -> None:
        self._config = config
        self._queue: deque[JobState] = deque()
        self._partitions: dict[Where, PartitionState] = {}
        self._owned: set[Where] = set()
        self._num_epochs = 0
        self._in_flight: dict[int, JobState] = {}  # by id(), in the order of fetching
        self._in_flight_bytes = 0
        self._parked: set[int] = set()  # by id()
        self.draining = False
        """A rebalance is under way: no job may begin."""

    # ---- jobs ----

    def take(self, message: Message, now_s: float) -> JobState:
        """Add a fetched message to the queue; `now_s` is in seconds since 1970."""
        where = (message.topic, message.partition)
        partition = self._partitions.get(where) or self._new(where)
        try:
            partition.tracker.take(message.offset)
        except ValueError:  # the topic was created anew or truncated: offsets start again
            partition = self._new(where)
            partition.tracker.take(message.offset)
        job = JobState(
            message=message,
            epoch=partition.epoch,
            id=message.position,
            wait_s=max(0.0, now_s - message.timestamp_s),
            fetched_s=now_s,
        )
        self._queue.append(job)
        self._in_flight[id(job)] = job
        self._in_flight_bytes += message.num_bytes
        return job

    def begin(self) -> JobState | None:
        """Take the next job from the queue; None while it is empty or a rebalance drains."""
        if not self.has_next:
            return None
        job = self._queue.popleft()
        partition = self._partition_of(job)
        if partition is not None:
            partition.num_begun += 1
        return job

    def finish(self, job: JobState) -> None:
        """Mark a begun job as finished, so that the watermark may pass it."""
        self._forget(job)
        partition = self._partition_of(job)
        if partition is not None:
            partition.num_begun -= 1
            partition.tracker.finish(job.message.offset)

    def park(self, job: JobState) -> None:
        """Set a begun job aside, so that no rebalance waits for it; it stays in flight."""
        if id(job) in self._in_flight:
            self._parked.add(id(job))
        partition = self._partition_of(job)
        if partition is not None:
            partition.num_begun -= 1

    def resume(self, job: JobState) -> bool:
        """Begin a parked job again; False when its partition is no longer assigned, and the job is dropped."""
        partition = self._partition_of(job)
        if partition is None:
            self._forget(job)
            return False
        self._parked.discard(id(job))
        partition.num_begun += 1
        return True

    def queue_again(self, job: JobState) -> bool:
        """Put a parked job at the head of the queue; False when its partition is no longer assigned."""
        if self._partition_of(job) is None:
            self._forget(job)
            return False
        self._parked.discard(id(job))
        self._queue.appendleft(job)
        return True

    def num_begun(self, partitions: Iterable[Where]) -> int:
        """Count the begun jobs of `partitions`."""
        return sum(self._partitions[where].num_begun for where in partitions if where in self._partitions)

    # ---- rebalances ----

    def assign(self, assigned: Collection[Where]) -> None:
        """Keep the state of partitions in `assigned`, drop all others, and let jobs begin again."""
        self._drop(set(self._partitions) - set(assigned))
        self._owned = set(assigned)
        self.draining = False

    def lose(self, lost: Collection[Where]) -> None:
        """Drop partitions that the group has given to others without waiting."""
        self._drop(lost)
        self._owned -= set(lost)
        self.draining = False

    def restart(self) -> None:
        """Drop the state of all partitions and keep them assigned: their topic was created anew."""
        self._drop(set(self._partitions))

    # ---- commits ----

    def uncommitted(self, *, include_unmoved: bool = False) -> dict[Where, int]:
        """Return the watermark of each owned partition that has moved since its last commit."""
        return {
            where: watermark
            for where, partition in self._owned_states()
            if (watermark := partition.tracker.watermark) is not None
            and (include_unmoved or watermark != partition.committed)
        }

    def note_committed(self, offsets: Mapping[Where, int]) -> None:
        """Remember the offsets of a successful commit."""
        for where, offset in offsets.items():
            if where in self._partitions:
                self._partitions[where].committed = offset

    # ---- back-pressure and measurements ----

    def to_pause(self, assigned: Collection[Where], paused: Collection[Where], *, stopping: bool) -> set[Where]:
        """Return which of the `assigned` partitions must not be fetched from, given those `paused` now.

        All of them at the limit of jobs or bytes, until half of it; single ones whose gap is too wide.
        """
        config = self._config
        share = _RESUME_SHARE if paused and set(paused) == set(assigned) else 1.0
        full = (
            stopping
            or len(self._in_flight) - len(self._parked) >= config.max_in_flight * share
            or len(self._parked) >= config.max_in_flight * WAITING_SHARE * share
            or self._in_flight_bytes >= config.max_in_flight_bytes * share
        )
        return {where for where in assigned if full or self._gap(where) >= config.max_gap}

    @property
    def has_next(self) -> bool:
        """Whether `begin` would return a job."""
        return bool(self._queue) and not self.draining

    @property
    def owned(self) -> frozenset[Where]:
        """Partitions assigned to this member."""
        return frozenset(self._owned)

    @property
    def num_queued(self) -> int:
        """Jobs fetched and not begun."""
        return len(self._queue)

    @property
    def num_in_flight(self) -> int:
        """Jobs fetched and not finished."""
        return len(self._in_flight)

    @property
    def in_flight_bytes(self) -> int:
        """Bytes of the messages of jobs in flight."""
        return self._in_flight_bytes

    @property
    def oldest_timestamp_s(self) -> float | None:
        """Time stamp of the message of the job that has been in flight longest, in seconds since 1970."""
        return next((job.message.timestamp_s for job in self._in_flight.values()), None)

    def watermarks(self) -> dict[Where, int | None]:
        """Return the watermark of each owned partition; None where no job has been taken yet."""
        return {
            where: None if (partition := self._partitions.get(where)) is None else partition.tracker.watermark
            for where in self._owned
        }

    # ---- private ----

    def _owned_states(self) -> Iterator[tuple[Where, PartitionState]]:
        for where in self._owned:
            if where in self._partitions:
                yield where, self._partitions[where]

    def _gap(self, where: Where) -> int:
        partition = self._partitions.get(where)
        return 0 if partition is None else partition.tracker.gap

    def _partition_of(self, job: JobState) -> PartitionState | None:
        """Return the job's partition, or None when it has been assigned anew since."""
        partition = self._partitions.get((job.message.topic, job.message.partition))
        return partition if partition is not None and partition.epoch == job.epoch else None

    def _new(self, where: Where) -> PartitionState:
        self._num_epochs += 1
        self._partitions[where] = partition = PartitionState(self._num_epochs)
        return partition

    def _drop(self, lost: Collection[Where]) -> None:
        """Forget partitions: jobs in flight for them no longer move their offset, queued ones are discarded."""
        for where in lost:
            self._partitions.pop(where, None)
        kept: deque[JobState] = deque()
        for job in self._queue:
            if (job.message.topic, job.message.partition) in lost:
                self._forget(job)
            else:
                kept.append(job)
        self._queue = kept

    def _forget(self, job: JobState) -> None:
        self._parked.discard(id(job))
        if self._in_flight.pop(id(job), None) is not None:
            self._in_flight_bytes -= job.message.num_bytes
