"""Configuration of a stream worker; the defaults of the command line are these fields."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.config import LOOPBACK, BatchConfig, PipelineConfig
from engine.stream.canary import Canary
from engine.stream.connection import Connection

WAITING_SHARE = 16
"""Jobs that may wait for their source, as a multiple of `max_in_flight`; they take little more than their message."""


@dataclass(frozen=True, kw_only=True)
class DeadLetterLimit:
    """Limit on failed jobs at which the worker stops."""

    consecutive: int = 200
    """Failed jobs in a row."""
    ratio: float = 0.5
    """Share of failed jobs among the last `window`."""
    window: int = 1000


@dataclass(frozen=True, kw_only=True)
class KafkaSourceConfig:
    """How jobs are fetched."""

    topic: str
    group: str
    max_in_flight: int = 512
    """Jobs fetched and not finished; fetching pauses at this number and resumes at half of it. Not counted are up to
    `WAITING_SHARE` times as many whose source is busy or away. The stages hold some 200 jobs, and slow sources up to 64
    more."""
    max_in_flight_bytes: int = 256 << 20
    """Bytes of the messages of jobs in flight; likewise."""
    max_gap: int = 10_000
    """Offsets between a partition's watermark and its last job, at which this partition pauses."""
    fetch_wait_s: float = 1.0
    """How long a broker may hold a fetch that finds no jobs; Kafka answers as soon as one comes."""
    readers: int = 128
    """Images read at the same time, half of them at most from one origin; more than cores, since they wait."""
    read_bytes: int = 1 << 30
    """Memory for images from below the input roots, from their read to the end of their job."""
    session_timeout_s: float = 45.0
    """Time without a heartbeat after which the group reassigns a worker's partitions."""
    drain_s: float = 10.0
    """Maximum time that a rebalance waits for begun jobs."""
    instance: str | None = None
    """Stable name of this member (group.instance.id), for restarts without a rebalance."""
    unassigned_s: float = 300.0
    """After this long without an assignment, while the brokers answer, the worker is no longer healthy."""
    lag_every_s: float = 10.0
    """Interval at which the brokers are asked for end offsets."""
    max_crashes: int = 2
    """Crashes of workers while a job was in progress, after which it goes alone; the next one is a dead letter."""
    skip_undecodable: bool = False
    """Turn batches of messages that cannot be decoded into dead letters instead of stopping."""


@dataclass(frozen=True, kw_only=True)
class KafkaSinkConfig:
    """How results and dead letters are published."""

    results: str
    dead_letters: str
    group: str
    """Consumer group, for the headers of dead letters."""
    worker: str
    """Name of this process in results."""
    inline_limit: int = 700_000
    """Maximum bytes of an image in a result; in base64 just under the brokers' usual limit of 1 MiB."""
    acknowledge_s: float = 30.0
    """Time without an acknowledgement after which the producer is replaced."""
    stuck_s: float = 600.0
    """A result that cannot be stored for this long, while others can, is a dead letter."""
    limit: DeadLetterLimit = field(default_factory=DeadLetterLimit)


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Configuration of a whole worker."""

    connection: Connection
    jobs: str
    """Topic of the jobs."""
    results: str
    dead_letters: str
    group: str
    models: tuple[str, ...]
    """Model names or files; the first is the default of jobs."""
    canary: Canary | None = None
    """Another model for a share of the jobs that name none."""
    input_roots: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    """Names of web servers that may have loopback, link-local or private addresses."""
    read_timeout_s: float = 30.0
    """For the whole body of an image from a web server."""
    output_root: str | None = None
    """Where results are stored; None puts every image into its result."""
    pipeline: PipelineConfig = field(default_factory=lambda: PipelineConfig(batch=BatchConfig(max_wait_s=0.05)))
    resident_models: int = 2
    """Models kept in memory at the same time."""
    max_in_flight: int = KafkaSourceConfig.max_in_flight
    max_in_flight_bytes: int = KafkaSourceConfig.max_in_flight_bytes
    max_source_bytes: int = 256 << 20
    """Maximum bytes of a source image; a larger one is a dead letter."""
    inline_limit: int = KafkaSinkConfig.inline_limit
    max_dead_letters: int = DeadLetterLimit.consecutive
    max_dead_letter_ratio: float = DeadLetterLimit.ratio
    grace_s: float = 30.0
    """Maximum time that SIGTERM waits for jobs in flight."""
    session_timeout_s: float = KafkaSourceConfig.session_timeout_s
    drain_s: float = KafkaSourceConfig.drain_s
    acknowledge_s: float = KafkaSinkConfig.acknowledge_s
    max_crashes: int = KafkaSourceConfig.max_crashes
    instance: str | None = None
    poll_stuck_s: float = 120.0
    """Time without a heartbeat of the poll thread after which the watchdog ends the process."""
    pipeline_stuck_s: float = 1800.0
    """Likewise while jobs are in flight and none finishes; leave time for compiling a model."""
    metrics_port: int | None = None
    metrics_host: str = LOOPBACK
    trace_endpoint: str | None = None
    """Base URL of an OTLP collector for spans of jobs; None makes none."""
    fetch_wait_s: float = KafkaSourceConfig.fetch_wait_s
    unassigned_s: float = KafkaSourceConfig.unassigned_s
    lag_every_s: float = KafkaSourceConfig.lag_every_s
    skip_undecodable: bool = KafkaSourceConfig.skip_undecodable
    create_topics: int | None = None
    """Partitions of missing topics that are created; None creates none."""
    reset_dead_letter_limit: bool = False
    """Start although earlier workers of the group stopped at the limit on dead letters."""

    def source(self, read_bytes: int) -> KafkaSourceConfig:
        """Return the configuration of a source that may hold `read_bytes` of images it has read."""
        return KafkaSourceConfig(
            read_bytes=read_bytes,
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
            max_crashes=self.max_crashes,
            skip_undecodable=self.skip_undecodable,
        )

    def sink(self, worker: str) -> KafkaSinkConfig:
        """Return the configuration of the sink of a process called `worker`."""
        return KafkaSinkConfig(
            results=self.results,
            dead_letters=self.dead_letters,
            group=self.group,
            worker=worker,
            inline_limit=self.inline_limit,
            acknowledge_s=self.acknowledge_s,
            limit=DeadLetterLimit(consecutive=self.max_dead_letters, ratio=self.max_dead_letter_ratio),
        )
