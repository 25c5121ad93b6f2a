"""`solstice results` follows results; `solstice replay` sends dead letters back."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from engine.cli.kafka_options import connection_from, kafka_options
from engine.cli.options import KAFKA, LIMITS, MONITORING, TOPICS, command
from engine.cli.progress import ProgressLine
from engine.observe.metrics import STAGES
from engine.system.terminal import visible


@command("results")
@kafka_options
@TOPICS.option(
    "--results", "topic", required=True, envvar="SOLSTICE_RESULTS", metavar="TOPIC", help="Topic to read results from."
)
@TOPICS.option("--new", is_flag=True, help="Read only results from now on; by default all that the topic holds.")
@LIMITS.option("--expect", type=click.IntRange(1), metavar="N", help="End when N different jobs have a result.")
@LIMITS.option("--timeout", type=click.FloatRange(0), help="End with code 1 after this many seconds without a result.")
@MONITORING.option("--json", "as_json", is_flag=True, help="Print each result as a line of JSON on standard output.")
def results(topic: str, expect: int | None, new: bool, timeout: float | None, as_json: bool, **options: Any) -> None:
    """Follow the results of jobs: done, failed, rate, time left.

    Exit code 0: all expected jobs are done. 1: some failed, or --timeout was reached.
    """
    connection = connection_from(options)
    from engine.stream.client import require_topics
    from engine.stream.topics import follow

    require_topics(connection, [topic])
    done: set[str] = set()
    failed: set[str] = set()
    result_s = time.monotonic()
    notice = SilenceNotice(expect)
    with ProgressLine("results", expect) as line:
        for result in follow(connection, topic, only_new=new):
            if result is not None:
                result_s = time.monotonic()
                _print(result, as_json)
                (failed if result["status"] == "failed" else done).add(result["id"])
                failed -= done  # a job that was replayed, or is done by another worker
                line.show(len(done) + len(failed), len(failed))
            if text := notice.due(time.monotonic(), result_s, len(done) + len(failed)):
                click.echo(text, err=True)
            # Only when nothing more waits: a job that failed may have been replayed.
            if result is None and expect is not None and len(done) + len(failed) >= expect:
                break
            if timeout is not None and time.monotonic() - result_s > timeout:
                break
    click.echo(f"{len(done)} done, {len(failed)} failed.", err=as_json)
    sys.exit(0 if not failed and (expect is None or len(done) >= expect) else 1)


class SilenceNotice:
    """A line for the user each time that no result has come for `every_s` seconds."""

    def __init__(self, expect: int | None, every_s: float = 60.0) -> None:
        self._expect = expect
        self._every_s = every_s
        self._times = 0

    def due(self, now_s: float, result_s: float, ended: int) -> str | None:
        """Return the line if one is due at `now_s`; `result_s` is the time of the last result."""
        times = int((now_s - result_s) / self._every_s)
        is_due, self._times = times > self._times, times
        if not is_due:
            return None
        missing = "" if self._expect is None else f"; {self._expect - ended:,} missing"
        return f"No result for {times * self._every_s:.0f} s{missing}."


@command("replay")
@kafka_options
@KAFKA.option(
    "--group", default="solstice-replay", help="Consumer group, whose offset records how far replaying has come."
)
@TOPICS.option(
    "--dead-letters",
    required=True,
    envvar="SOLSTICE_DEAD_LETTERS",
    metavar="TOPIC",
    help="Topic to read dead letters from.",
)
@TOPICS.option("--stage", type=click.Choice(["job", *STAGES]), help="Only jobs that failed in this stage.")
@TOPICS.option("--dry-run", is_flag=True, help="Count only.")
@LIMITS.option(
    "--idle",
    "idle_s",
    type=click.FloatRange(1),
    default=10.0,
    help="End after this many seconds without a dead letter.",
)
def replay(dead_letters: str, group: str, stage: str | None, idle_s: float, dry_run: bool, **options: Any) -> None:
    """Send dead letters back to the topics they came from.

    Each is sent once. Fix what made the jobs fail first.
    """
    connection = connection_from(options)
    from engine.stream.client import require_topics
    from engine.stream.topics import replay as send_back

    require_topics(connection, [dead_letters])
    sent, left_out = send_back(connection, dead_letters, group, stage=stage, idle_s=idle_s, dry_run=dry_run)
    click.echo(f"{sent} jobs {'would be ' if dry_run else ''}sent back, {left_out} left out.")


def _print(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result))
    elif result["status"] == "failed":
        error = result.get("error", {})
        click.echo(visible(f"{result['id']}: {error.get('stage')}: {error.get('reason')}"), err=True)
