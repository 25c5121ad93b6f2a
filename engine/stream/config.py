"""Configuration of a stream worker; the defaults of the command line are these fields."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.config import LOOPBACK, BatchConfig, PipelineConfig
from engine.stream.connection import Connection


@dataclass(frozen=True, kw_only=True)
class DeadLetterLimit:
    """How many jobs may fail before the worker stops."""

    consecutive: int = 200
    """Failed jobs with no success between them."""
    ratio: float = 0.5
    """Failed jobs among the last `window`."""
    window: int = 1000


@dataclass(frozen=True, kw_only=True)
class KafkaSourceConfig:
    """How jobs are fetched."""

    topic: str
    group: str
    max_in_flight: int = 256
    """Jobs fetched and not ended; at this number fetching pauses, at half of it it goes on."""
    max_in_flight_bytes: int = 256 << 20
    """Bytes of their messages; likewise."""
    max_gap: int = 10_000
    """Offsets between a partition's watermark and its last job; one stuck job holds the watermark, not the worker."""
    fetch_wait_s: float = 1.0
    """How long a broker may hold a fetch that finds no jobs; Kafka answers as soon as one comes."""
    readers: int = 64
    """Images read from storage at the same time."""
    session_timeout_s: float = 45.0
    """After this long without a heartbeat the group gives a worker's partitions to others."""
    drain_s: float = 10.0
    """How long a rebalance waits for jobs that have begun."""
    instance: str | None = None
    """Stable name of this member, for restarts without a rebalance."""
    unassigned_s: float = 300.0
    """After this long without an assignment, while the brokers answer, the worker is no longer healthy."""
    lag_every_s: float = 10.0
    """Interval at which the brokers are asked for end offsets."""
    skip_undecodable: bool = False
    """Turn batches of messages that cannot be decoded into dead letters instead of stopping."""


@dataclass(frozen=True, kw_only=True)
class KafkaSinkConfig:
    """Where results go."""

    results: str
    dead_letters: str
    group: str
    """For the dead letters' headers."""
    worker: str
    """Names this process in results."""
    inline_limit: int = 700_000
    """Bytes of an image that may travel in a result; in base64 that is just under the brokers' usual 1 MiB."""
    acknowledge_s: float = 30.0
    """After this long without an acknowledgement the producer is given up and made anew."""
    stuck_s: float = 600.0
    """A result that cannot be stored for this long, while others can, is a dead letter."""
    limit: DeadLetterLimit = field(default_factory=DeadLetterLimit)


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """A whole worker."""

    connection: Connection
    jobs: str
    """Topic of the jobs."""
    results: str
    dead_letters: str
    group: str
    models: tuple[str, ...]
    """Names or files; the first translates jobs that name none."""
    input_roots: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    """Names of web servers that may have loopback, link-local or private addresses."""
    read_timeout_s: float = 30.0
    """For the whole body of an image from a web server."""
    output_root: str | None = None
    """None sends every result inline."""
    pipeline: PipelineConfig = field(default_factory=lambda: PipelineConfig(batch=BatchConfig(max_wait_s=0.05)))
    resident_models: int = 2
    """Generators in memory at a time."""
    max_in_flight: int = KafkaSourceConfig.max_in_flight
    max_in_flight_bytes: int = KafkaSourceConfig.max_in_flight_bytes
    max_source_bytes: int = 256 << 20
    """A larger source image is a dead letter."""
    inline_limit: int = KafkaSinkConfig.inline_limit
    max_dead_letters: int = DeadLetterLimit.consecutive
    max_dead_letter_ratio: float = DeadLetterLimit.ratio
    grace_s: float = 30.0
    """How long SIGTERM waits for jobs under way."""
    session_timeout_s: float = KafkaSourceConfig.session_timeout_s
    drain_s: float = KafkaSourceConfig.drain_s
    acknowledge_s: float = KafkaSinkConfig.acknowledge_s
    instance: str | None = None
    poll_stuck_s: float = 120.0
    """The watchdog ends a process whose poll thread is silent for this long, so that it is started again."""
    pipeline_stuck_s: float = 1800.0
    """Likewise when jobs are under way and none ends; leave time for compiling a model."""
    metrics_port: int | None = None
    metrics_host: str = LOOPBACK
    fetch_wait_s: float = KafkaSourceConfig.fetch_wait_s
    unassigned_s: float = KafkaSourceConfig.unassigned_s
    lag_every_s: float = KafkaSourceConfig.lag_every_s
    skip_undecodable: bool = KafkaSourceConfig.skip_undecodable
    create_topics: int | None = None
    """Partitions of topics that are missing; None makes none."""
    reset_dead_letter_limit: bool = False
    """Start although earlier workers of the group stopped at the limit on dead letters."""

    @property
    def source(self) -> KafkaSourceConfig:
        """The part that decides how jobs are fetched."""
        return KafkaSourceConfig(
            topic=self.jobs,
            group=self.group,
            max_in_flight=self.max_in_flight,
            max_in_flight_bytes=self.max_in_flight_bytes,
            session_timeout_s=self.session_timeout_s,
            drain_s=self.drain_s,
            instance=self.instance,
            fetch_wait_s=self.fetch_wait_s,
            unassigned_s=self.unassigned_s,
            lag_every_s=self.lag_every_s,
            skip_undecodable=self.skip_undecodable,
        )

    def sink(self, worker: str) -> KafkaSinkConfig:
        """Give the part that decides where results of the process `worker` go."""
        return KafkaSinkConfig(
            results=self.results,
            dead_letters=self.dead_letters,
            group=self.group,
            worker=worker,
            inline_limit=self.inline_limit,
            acknowledge_s=self.acknowledge_s,
            limit=DeadLetterLimit(consecutive=self.max_dead_letters, ratio=self.max_dead_letter_ratio),
        )
