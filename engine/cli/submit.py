"""`solstice submit`: send a job for each image of an archive."""

from __future__ import annotations

import hashlib
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.cli.kafka_options import connection_from, kafka_options
from engine.cli.options import INPUT, MODEL, OUTPUT, SIZE, TOPICS, command
from engine.cli.output import say, say_some
from engine.cli.secrets import refuse_password
from engine.codec.formats import FORMATS
from engine.runtime.cache import default_cache, make_private

if TYPE_CHECKING:  # it loads the Kafka client, which `--help` must not
    from engine.stream.submit import Submitted


@command("submit")
@click.argument("src", callback=refuse_password)
@kafka_options
@TOPICS.option("--jobs", required=True, envvar="SOLSTICE_JOBS", metavar="TOPIC", help="Topic to send jobs to.")
@TOPICS.option("--create-topics", type=click.IntRange(1), metavar="N", help="Create a missing topic with N partitions.")
@MODEL.option("--model", metavar="NAME", help="One of the workers' models; by default their first.")
@SIZE.option("--size", metavar="auto|N|WxH|native", help="Working size; by default the workers' setting.")
@OUTPUT.option(
    "--format",
    type=click.Choice(["keep", *FORMATS]),
    default=None,
    help="Output format; by default the workers' setting.",
)
@OUTPUT.option("--quality", type=click.IntRange(1, 100), default=None, help="Quality; by default the workers' setting.")
@INPUT.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that records which jobs have been sent; by default in the cache folder.",
)
@INPUT.option("--again", is_flag=True, help="Send all jobs, also those that were sent before.")
def submit(src: str, jobs: str, create_topics: int | None, journal: Path | None, again: bool, **options: Any) -> None:
    """Send a job for each image of SRC to a Kafka topic.

    SRC is a folder, an image, a list of paths (.txt), a .tar, a .zip, or a URL such as s3://…. Workers must be able to
    read it (--input-root). A second run sends only what is new or changed.
    """
    connection = connection_from(options)
    fields = {name: value for name, value in options.items() if value is not None}
    path = journal or _default_journal(src, connection.brokers, jobs)
    from engine.stream.client import require_topics
    from engine.stream.submit import Journal
    from engine.stream.submit import submit as send_jobs

    require_topics(connection, [jobs], create_topics)
    with Journal(path) as known:
        if again:
            known.clear()
        done = send_jobs(src, connection, jobs, known, fields, lambda so_far: _show(so_far.sent))
    _print_summary(done)


def _print_summary(done: Submitted) -> None:
    from engine.listing.left_out import described, reader_hints

    refused = f", {len(done.refused):,} images refused" if done.refused else ""
    say(f"{done.sent:,} jobs sent, {done.known:,} sent before{refused}{described(done.left_out)}.")
    say_some([f"{name}: {reason}" for name, reason in done.refused.items()])
    for hint in reader_hints(done.left_out):
        say(hint)


def _show(sent: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{sent} jobs sent", nl=False, err=True)


def _default_journal(src: str, brokers: str, topic: str) -> Path:
    """Return the journal of this source and topic."""
    where = src if "://" in src else str(Path(src).absolute())
    name = hashlib.sha256("\n".join((where, brokers, topic)).encode()).hexdigest()[:24]
    with suppress(OSError):  # the journal reports it
        make_private(default_cache())
    return default_cache() / "submitted" / name
