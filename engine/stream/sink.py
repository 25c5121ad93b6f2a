"""A sink that stores images under the output root and tells their results to a topic.

For each job, in this order: the image is durable, then its result is acknowledged by the brokers, then (by the source)
the offset is marked done. A job that fails gets a result that says so and a dead letter, both acknowledged. While the
storage or the brokers are away a call waits, which in the end pauses fetching; nothing is lost and nothing is a dead
letter because of it.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from engine.codec.formats import FORMATS
from engine.errors import SkipImage, StopRun
from engine.observe.health import Health
from engine.observe.metrics import Metrics
from engine.records import Encoded, Failed, Outcome, Record, Stored
from engine.stream.config import KafkaSinkConfig
from engine.stream.connection import Connection
from engine.stream.dead_letters import DeadLetterGuard
from engine.stream.jobs import VERSION, JobState, job_state
from engine.stream.outputs import Output
from engine.stream.producer import _TOO_LARGE, Letter, Producer
from engine.system.retry import pauses_s
from engine.system.versions import installed

log = logging.getLogger(__name__)

HEADER = "solstice-"
"""Begins the names of the headers that a dead letter gets."""

_LONGEST_HEADER = 1000
_KEPT_OF_LARGE = 1000


class KafkaSink:
    """Stores images and tells results; safe for several threads."""

    def __init__(
        self,
        connection: Connection,
        config: KafkaSinkConfig,
        output: Output | None,
        metrics: Metrics,
        health: Health,
    ) -> None:
        """With no `output` every result travels inline. Raises `SetupError` when the brokers cannot be reached."""
        self.guard = DeadLetterGuard(config.limit)
        """Limit on failed jobs."""
        self._config = config
        self._output = output
        self._metrics = metrics
        self._health = health
        self._producer = Producer(connection, config.acknowledge_s, metrics)
        self._give_up = threading.Event()
        self._stored_s = time.monotonic()
        self._up(True)

    def give_up(self) -> None:
        """Let every call that waits for storage or brokers raise `StopRun`."""
        self._give_up.set()

    def close(self, timeout_s: float) -> None:
        """Close the producer; everything settled is acknowledged already."""
        self._producer.close(timeout_s)

    def store(self, record: Record[Encoded]) -> Stored:
        """Make the image durable, or keep it for its result. Blocks while the storage is away."""
        state = job_state(record)
        encoded, job = record.payload, state.job
        assert job is not None, "only parsed jobs are translated"
        state.result = _described(record, state)
        started_s = time.perf_counter()
        if job.inline or self._output is None:
            if len(encoded.data) > self._config.inline_limit:
                raise SkipImage(
                    f"the result has {len(encoded.data):,} bytes, over the limit of {self._config.inline_limit:,} for "
                    "inline ones; let it be stored, or ask for a smaller size or quality"
                )
            state.result["data"] = base64.b64encode(encoded.data).decode()
            return Stored.of(encoded, "")
        name = _output_name(state, encoded)
        self._write(self._output, name, encoded.data)
        state.result["output"] = self._output.uri(name)
        receipt = {"name": name, "result": state.result}
        self._output.write_receipt(state.digest, json.dumps(receipt).encode())
        record.timings["store"] = time.perf_counter() - started_s
        return Stored.of(encoded, name)

    def reject(self, failed: Failed) -> None:
        """Do nothing yet: `settle` sends failures together with results."""

    def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Send results and dead letters and wait until the brokers have them, for as long as that takes.

        Raises `StopRun` when too many jobs fail.
        """
        for outcome in outcomes:
            self.guard.saw(isinstance(outcome, Failed))
        settled = list(outcomes)
        letters = [letter for i, outcome in enumerate(outcomes) for letter in self._letters(i, outcome)]
        while letters:
            refused = self._sent(letters)
            letters = []
            for letter in refused:
                outcome = settled[letter.outcome]
                if isinstance(outcome, Record):
                    settled[letter.outcome] = outcome.failed("store", "its result is larger than the brokers take")
                    letters += self._letters(letter.outcome, settled[letter.outcome])
                else:
                    letters.append(_cut(letter))
        for outcome in settled:
            if isinstance(outcome, Failed):
                self._metrics.count("dead_letters_total", 1.0, outcome.stage)
        return settled

    def answered(self, state: JobState) -> bool:
        """Send the result of an earlier delivery of this very job again, if it is there still."""
        job = state.job
        if self._output is None or job is None or job.inline:
            return False
        kept = self._output.read_receipt(state.digest)
        if kept is None:
            return False
        try:
            receipt = json.loads(kept)
            if self._output.size(receipt["name"]) != receipt["result"]["bytes"]:
                return False
            state.result = receipt["result"]
        except (ValueError, KeyError, TypeError):  # cut off by a crash
            return False
        fields = {**self._fields(state, {}), "status": "done", **state.result, "duplicate": True}
        self._sent([Letter(self._config.results, state.id.encode(), _json(fields), [], 0)])
        self.guard.saw(failed=False)
        self._metrics.count("duplicates_total")
        self._metrics.count("jobs_total", 1.0, "duplicate", "")
        return True

    # ---- results and dead letters ----

    def _letters(self, index: int, outcome: Outcome) -> list[Letter]:
        state = job_state(outcome)
        fields = self._fields(state, outcome.timings)
        key = state.id.encode()
        if isinstance(outcome, Record):
            done = {**fields, "status": "done", **state.result}
            return [Letter(self._config.results, key, _json(done), [], index)]
        reason = outcome.reason[:_LONGEST_HEADER]
        failed = {**fields, "status": "failed", "error": {"stage": outcome.stage, "reason": reason}}
        return [
            Letter(self._config.results, key, _json(failed), [], index),
            self._dead_letter(index, outcome, state),
        ]

    def _fields(self, state: JobState, timings: dict[str, float]) -> dict[str, Any]:
        message = state.message
        spent = {**state.timings, **timings}
        return {
            "version": VERSION,
            "id": state.id,
            "attempts": state.attempts,
            "worker": self._config.worker,
            "timings": {stage: round(seconds, 6) for stage, seconds in spent.items()},
            "job": {"topic": message.topic, "partition": message.partition, "offset": message.offset},
        }

    def _dead_letter(self, index: int, failed: Failed, state: JobState) -> Letter:
        """Give the message as it came, with what became of it in headers."""
        message = state.message
        told = {
            "topic": message.topic,
            "partition": message.partition,
            "offset": message.offset,
            "timestamp": int(message.timestamp_s * 1000),
            "group": self._config.group,
            "stage": failed.stage,
            "reason": failed.reason,
            "attempts": state.attempts,
            "worker": self._config.worker,
            "worker-version": installed("solstice-engine"),
        }
        own = [(HEADER + name, str(value).encode()[:_LONGEST_HEADER]) for name, value in told.items()]
        theirs = [(name, value) for name, value in message.headers if not name.startswith(HEADER) or name == REPLAYS]
        return Letter(self._config.dead_letters, message.key, message.value, [*theirs, *own], index)

    # ---- waiting for what is away ----

    def _write(self, output: Output, name: str, data: bytes) -> None:
        began_s = time.monotonic()
        for pause_s in pauses_s():
            try:
                output.write(name, data)
            except OSError as error:
                if time.monotonic() - began_s > self._config.stuck_s and self._stored_s > began_s:
                    raise SkipImage(f"could not be stored while others could: {error}") from error
                self._wait("The output root", error, pause_s)
            else:
                self._stored_s = time.monotonic()
                self._up(True)
                return

    def _sent(self, letters: Sequence[Letter]) -> list[Letter]:
        """Send until all are acknowledged; gives those that the brokers will never take."""
        refused: list[Letter] = []
        for pause_s in pauses_s():
            trouble: Exception | None = None
            waiting = [letter for letter in letters if not letter.sent]
            for letter, error in zip(waiting, self._producer.send(waiting), strict=True):
                letter.sent = error is None or isinstance(error, _TOO_LARGE)
                if isinstance(error, _TOO_LARGE):
                    refused.append(letter)
                elif error is not None:
                    trouble = error
            if trouble is None:
                self._up(True)
                break
            self._wait("Kafka", trouble, pause_s)
        return refused

    def _wait(self, what: str, error: Exception, pause_s: float) -> None:
        self._up(False)
        self._health.beat("pipeline")  # it waits, and is not stuck
        self._metrics.count("retries_total", 1.0, "store")
        log.warning("%s takes no results at the moment, waiting: %s", what, error or type(error).__name__)
        if self._give_up.wait(pause_s):
            raise StopRun(f"{what} took no results until the end of the grace period: {error}.")

    def _up(self, up: bool) -> None:
        self._metrics.gauge("sink_up", float(up))
        self._health.require("sink", up)


REPLAYS = HEADER + "replays"
"""Header that counts how often a job came back from the dead letters."""


def _described(record: Record[Encoded], state: JobState) -> dict[str, Any]:
    encoded = record.payload
    return {
        "format": encoded.format,
        "width": encoded.width,
        "height": encoded.height,
        "bytes": len(encoded.data),
        "model": record.options.model,
        "model_sha256": state.model_sha256,
        "notes": list(encoded.notes),
    }


def _output_name(state: JobState, encoded: Encoded) -> str:
    """Give the job's own name for its result, or one from its id and all that decides the image."""
    job = state.job
    assert job is not None
    if job.output is not None:
        return job.output
    return f"{quote(job.id, safe='')[:150]}-{state.digest[:16]}{FORMATS[encoded.format.lower()]}"


def _cut(letter: Letter) -> Letter:
    """Shorten a letter that the brokers do not take; its beginning tells what it was."""
    note = (HEADER + "cut", f"value of {len(letter.value)} bytes".encode())
    if any(name == note[0] for name, _ in letter.headers):
        raise StopRun(f"The topic {letter.topic} takes not even a message of {len(letter.value)} bytes.")
    return replace(letter, value=letter.value[:_KEPT_OF_LARGE], headers=[*letter.headers, note], sent=False)


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
