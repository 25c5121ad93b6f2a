"""`solstice stream`: one worker on a Kafka topic."""

from __future__ import annotations

import sys
from typing import Any, get_args

import click

from engine.cli.kafka_options import connection_from, kafka_options
from engine.cli.options import SizeType, metrics_options, result_options, translate_options
from engine.config import BatchConfig, DecodeConfig, EncodeConfig, GenerateConfig, PipelineConfig
from engine.observe.logs import LogFormat, service_log
from engine.options import Detail, Options
from engine.stream.config import StreamConfig

_MAX_WAIT_S = 0.05


@click.command()
@kafka_options
@click.option("--jobs", required=True, envvar="SOLSTICE_JOBS", metavar="TOPIC")
@click.option("--results", required=True, envvar="SOLSTICE_RESULTS", metavar="TOPIC")
@click.option("--dead-letters", required=True, envvar="SOLSTICE_DEAD_LETTERS", metavar="TOPIC")
@click.option("--group", required=True, envvar="SOLSTICE_GROUP", help="Workers of one group share the jobs.")
@click.option("--instance", envvar="SOLSTICE_INSTANCE", help="Stable name of this worker in its group.")
@click.option("--create-topics", type=click.IntRange(1), metavar="N", help="Make missing topics, of N partitions.")
@click.option(
    "--model", "models", multiple=True, required=True, metavar="NAME|FILE", help="May be repeated; first is default."
)
@click.option("--resident-models", type=click.IntRange(1), default=StreamConfig.resident_models, show_default=True)
@click.option(
    "--input-root", "input_roots", multiple=True, metavar="URI", help="Jobs may read below it: folder, s3://, https://."
)
@click.option("--output-root", metavar="URI", help="Results go below it; without it they travel in the messages.")
@click.option("--size", type=SizeType(), default=str(Options().size), show_default=True, metavar="N|WxH|native")
@click.option("--detail", type=click.Choice(get_args(Detail)), default=Options().detail, show_default=True)
@result_options
@click.option(
    "--max-wait", type=click.FloatRange(0), default=_MAX_WAIT_S, show_default=True, help="Seconds a job waits for more."
)
@translate_options
@click.option("--max-source-bytes", type=click.IntRange(1), default=StreamConfig.max_source_bytes, show_default=True)
@click.option("--inline-limit", type=click.IntRange(1), default=StreamConfig.inline_limit, show_default=True)
@click.option("--max-in-flight", type=click.IntRange(2), default=StreamConfig.max_in_flight, show_default=True)
@click.option(
    "--max-in-flight-bytes", type=click.IntRange(1 << 20), default=StreamConfig.max_in_flight_bytes, show_default=True
)
@click.option(
    "--max-dead-letters",
    type=click.IntRange(1),
    default=StreamConfig.max_dead_letters,
    show_default=True,
    help="Stop when more than this many jobs in a row fail.",
)
@click.option(
    "--max-dead-letter-ratio",
    type=click.FloatRange(0, 1),
    default=StreamConfig.max_dead_letter_ratio,
    show_default=True,
    help="Stop when more than this share of the last 1000 jobs failed.",
)
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(0),
    default=StreamConfig.grace_s,
    show_default=True,
    help="Seconds that SIGTERM waits for jobs under way.",
)
@click.option(
    "--session-timeout",
    "session_timeout_s",
    type=click.FloatRange(1),
    default=StreamConfig.session_timeout_s,
    show_default=True,
    help="Seconds after which a silent worker's jobs go to others.",
)
@metrics_options
@click.option("--log-format", type=click.Choice(get_args(LogFormat)), default="text", show_default=True)
def stream(log_format: LogFormat, **options: Any) -> None:
    """Translate the image jobs of a Kafka topic until told to stop.

    Each job is translated at least once; its result is stored and acknowledged before the job counts as done. Start
    as many workers of one group as you like, and kill any of them at any time. docs/streaming.md has the details.

    Exit code 0: stopped by SIGTERM or Ctrl-C and drained. 1: the grace period ended first. 2: it could not start or go
    on, with one sentence. 70: something was stuck; start it again.
    """
    with service_log(log_format):
        config = _config(options)
        from engine.stream.worker import Worker  # not before: `solstice convert` must not wait for a Kafka client

        code = Worker(config).run()
    sys.exit(code)


def _config(options: dict[str, Any]) -> StreamConfig:
    connection = connection_from(options)
    pipeline = PipelineConfig(
        options=Options(**{name: options.pop(name) for name in ("size", "detail", "format")}),
        decode=DecodeConfig(
            jpegs=options.pop("decode"), **{name: options.pop(name) for name in ("max_pixels", "allow_damaged")}
        ),
        batch=BatchConfig(size=options.pop("batch"), max_wait_s=options.pop("max_wait")),
        generate=GenerateConfig(
            memory_bytes=options.pop("memory"),
            **{name: options.pop(name) for name in ("backend", "precision", "device")},
        ),
        encode=EncodeConfig(quality=options.pop("quality"), gpu_from_pixels=options.pop("gpu_encode_from")),
    )
    return StreamConfig(connection=connection, pipeline=pipeline, **options)
