"""`solstice stream`: one worker on a Kafka topic."""

from __future__ import annotations

import logging
from typing import Any, get_args

import click

from engine.cli.kafka_options import connection_from, kafka_options
from engine.cli.options import (
    INPUT,
    KAFKA,
    LIMITS,
    MODEL,
    MONITORING,
    OUTPUT,
    SIZE,
    SPEED,
    TOPICS,
    SizeType,
    command,
    metrics_options,
    result_options,
    translate_options,
)
from engine.cli.output import ImmediateExit
from engine.cli.secrets import refuse_password
from engine.config import BatchConfig, DecodeConfig, EncodeConfig, GenerateConfig, PipelineConfig
from engine.observe.logs import LogFormat, service_log
from engine.options import Detail, Options
from engine.stream.canary import Canary
from engine.stream.config import StreamConfig
from engine.system.allocator import keep_freed_memory

_MAX_WAIT_S = 0.05


class CanaryType(click.ParamType[Canary]):
    """`summer2winter=5%`."""

    name = "canary"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Canary:
        """Parse, or fail with the message of `Canary.parse`."""
        if isinstance(value, Canary):
            return value
        try:
            return Canary.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@command("stream")
@kafka_options
@KAFKA.option("--group", required=True, envvar="SOLSTICE_GROUP", help="Consumer group; its workers share the jobs.")
@KAFKA.option("--instance", envvar="SOLSTICE_INSTANCE", help="Stable name of this worker in its group.")
@TOPICS.option("--jobs", required=True, envvar="SOLSTICE_JOBS", metavar="TOPIC", help="Topic to read jobs from.")
@TOPICS.option(
    "--results", required=True, envvar="SOLSTICE_RESULTS", metavar="TOPIC", help="Topic to write results to."
)
@TOPICS.option(
    "--dead-letters",
    required=True,
    envvar="SOLSTICE_DEAD_LETTERS",
    metavar="TOPIC",
    help="Topic to write failed jobs to.",
)
@TOPICS.option("--create-topics", type=click.IntRange(1), metavar="N", help="Create missing topics with N partitions.")
@MODEL.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    metavar="NAME|FILE",
    help="Model that jobs may ask for; repeat for several. The first is the default.",
)
@MODEL.option(
    "--canary",
    type=CanaryType(),
    metavar="NAME=SHARE%",
    help="Give this share of the jobs that name no model to another model, the same jobs on every worker.",
)
@MODEL.option(
    "--resident-models",
    type=click.IntRange(1),
    default=StreamConfig.resident_models,
    help="Models kept in memory at the same time.",
)
@INPUT.option(
    "--input-root",
    "input_roots",
    multiple=True,
    callback=refuse_password,
    metavar="URI",
    help="Allow jobs to read below this folder, s3:// or https:// URI; may be repeated.",
)
@INPUT.option(
    "--allow-private-host",
    "private_hosts",
    multiple=True,
    metavar="HOST",
    help="Allow the web server HOST of an --input-root to have a private address; may be repeated.",
)
@INPUT.option(
    "--read-timeout",
    "read_timeout_s",
    type=click.FloatRange(0, min_open=True),
    default=StreamConfig.read_timeout_s,
    help="Seconds for the whole body of an image from a web server.",
)
@INPUT.option(
    "--max-bytes",
    "--max-source-bytes",
    "max_source_bytes",
    type=click.IntRange(1),
    default=StreamConfig.max_source_bytes,
    help="Refuse larger source images.",
)
@OUTPUT.option(
    "--output-root",
    callback=refuse_password,
    metavar="URI",
    help="Write results below this URI; by default they travel in the messages.",
)
@OUTPUT.option(
    "--inline-limit",
    type=click.IntRange(1),
    default=StreamConfig.inline_limit,
    help="Bytes of the largest image that a message may carry.",
)
@SIZE.option(
    "--size",
    type=SizeType(),
    default=str(Options().size),
    metavar="auto|N|WxH|native",
    help="Working size of jobs that name none.",
)
@SIZE.option(
    "--detail", type=click.Choice(get_args(Detail)), default=Options().detail, help="Detail of jobs that name none."
)
@result_options
@SPEED.option(
    "--max-wait",
    type=click.FloatRange(0),
    default=_MAX_WAIT_S,
    help="Maximum wait in seconds for a batch to fill, while the generator is busy.",
)
@translate_options
@LIMITS.option(
    "--max-in-flight", type=click.IntRange(2), default=StreamConfig.max_in_flight, help="Jobs in progress at once."
)
@LIMITS.option(
    "--max-in-flight-bytes",
    type=click.IntRange(1 << 20),
    default=StreamConfig.max_in_flight_bytes,
    help="Bytes of the messages of jobs in progress.",
)
@LIMITS.option(
    "--max-dead-letters",
    type=click.IntRange(1),
    default=StreamConfig.max_dead_letters,
    help="Stop when more than this many jobs in a row fail.",
)
@LIMITS.option(
    "--max-dead-letter-ratio",
    type=click.FloatRange(0, 1),
    default=StreamConfig.max_dead_letter_ratio,
    help="Stop when more than this share of the last 1000 jobs failed.",
)
@LIMITS.option(
    "--fetch-wait",
    "fetch_wait_s",
    type=click.FloatRange(0.001),
    default=StreamConfig.fetch_wait_s,
    help="Seconds that a broker may hold a request for jobs while there are none.",
)
@LIMITS.option(
    "--skip-undecodable",
    is_flag=True,
    help="Send a dead letter for messages that cannot be decoded, instead of stopping.",
)
@LIMITS.option(
    "--reset-dead-letter-limit",
    is_flag=True,
    help="Start although an earlier worker of the group stopped at the limit.",
)
@LIMITS.option(
    "--max-crashes",
    type=click.IntRange(1),
    default=StreamConfig.max_crashes,
    help="Crashes of workers during a job after which it goes alone; one more makes it a dead letter.",
)
@LIMITS.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(0),
    default=StreamConfig.grace_s,
    help="Seconds that SIGTERM waits for jobs in progress.",
)
@LIMITS.option(
    "--session-timeout",
    "session_timeout_s",
    type=click.FloatRange(1),
    default=StreamConfig.session_timeout_s,
    help="Seconds without a heartbeat after which other workers take over the jobs.",
)
@metrics_options
@MONITORING.option(
    "--trace-endpoint",
    envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
    metavar="URL",
    help="Send spans of each job to the OpenTelemetry collector at this URL, over HTTP; by default none are made.",
)
@MONITORING.option(
    "--log-format", type=click.Choice(get_args(LogFormat)), default="text", help="Lines for people, or JSON objects."
)
def stream(log_format: LogFormat, **options: Any) -> None:
    """Translate the image jobs of a Kafka topic until stopped.

    Each job is translated at least once; its result is stored and acknowledged before its offset is committed. Any
    number of workers may share a group, and any of them may be killed at any time. See docs/streaming.md.

    Exit code 0: stopped by SIGTERM or Ctrl-C and drained. 1: the grace period ended first. 2: the worker could not
    start or continue, with one sentence. 70: the worker was stuck; restart it.
    """
    with service_log(log_format):
        config = _config(options)
        from engine.stream.worker import StoppedDuringStart, Worker, stoppable_start  # imports torch and kafka

        keep_freed_memory()
        try:
            with stoppable_start():
                code = Worker(config).run()
        except StoppedDuringStart:
            logging.getLogger(__name__).info("Stopped during the start; no job was taken")
            code = 0
    raise ImmediateExit(code)  # everything is stored and committed


def _config(options: dict[str, Any]) -> StreamConfig:
    connection = connection_from(options)
    pipeline = PipelineConfig(
        options=Options(**{name: options.pop(name) for name in ("size", "detail", "format", "depth")}),
        decode=DecodeConfig(
            jpegs=options.pop("decode"),
            **{name: options.pop(name) for name in ("max_pixels", "max_output_pixels", "allow_damaged")},
        ),
        batch=BatchConfig(size=options.pop("batch"), max_wait_s=options.pop("max_wait")),
        generate=GenerateConfig(
            memory_bytes=options.pop("memory"),
            **{name: options.pop(name) for name in ("backend", "precision", "trunk", "cuda_graph", "device")},
        ),
        encode=EncodeConfig(quality=options.pop("quality"), gpu_from_pixels=options.pop("gpu_encode_from")),
    )
    return StreamConfig(connection=connection, pipeline=pipeline, **options)
