"""A sink that stores images under the output root and publishes their results on a topic.

The order for each job: the image is durable, its result is acknowledged by the brokers, the source marks the offset as
done. A failed job has a result with the reason, and a dead letter, both acknowledged. While the storage or the brokers
are unavailable, calls wait, which in the end pauses fetching, and no job is lost. A dead letter follows only if one
result cannot be stored for `stuck_s` while others can.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import orjson
import pybase64

from engine.codec.formats import FORMATS
from engine.errors import SkipImage, StopRun
from engine.observe.health import Health
from engine.observe.metrics import Metrics
from engine.records import Encoded, Failed, Outcome, Record, Stored
from engine.stream.config import KafkaSinkConfig
from engine.stream.connection import Connection
from engine.stream.dead_letters import DeadLetterGuard
from engine.stream.jobs import VERSION, JobState, Message, job_state
from engine.stream.outputs import Output
from engine.stream.producer import TOO_LARGE, OutgoingMessage, Producer
from engine.system.retry import pauses_s
from engine.system.versions import installed

log = logging.getLogger(__name__)

HEADER = "solstice-"
"""Prefix of the headers that are added to a dead letter."""
REPLAYS = HEADER + "replays"
"""Header with the number of times that a job was replayed from the dead letters."""
CUT = HEADER + "cut"
"""Header of a dead letter that does not hold its whole message."""

_LONGEST_HEADER = 1000
_KEPT_OF_LARGE = 1000


class KafkaSink:
    """Stores images and publishes results; thread-safe."""

    def __init__(
        self,
        connection: Connection,
        config: KafkaSinkConfig,
        output: Output | None,
        metrics: Metrics,
        health: Health,
    ) -> None:
        """Without `output`, every result carries its image. Raises `SetupError` when the brokers cannot be reached."""
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
        """Make every call that waits for storage or brokers raise `StopRun`."""
        self._give_up.set()

    def close(self, timeout_s: float) -> None:
        """Close the producer; everything settled is acknowledged already."""
        self._producer.close(timeout_s)

    def store(self, record: Record[Encoded]) -> Stored:
        """Store the image durably, or keep it for its result. Blocks while the storage is unavailable."""
        state = job_state(record)
        encoded, job = record.payload, state.job
        assert job is not None, "only parsed jobs are translated"
        state.result = _described(record)
        started_s = time.perf_counter()
        if job.inline or self._output is None:
            if len(encoded.data) > self._config.inline_limit:
                raise SkipImage(
                    f"the result has {len(encoded.data):,} bytes, over the limit of {self._config.inline_limit:,} for "
                    "inline results; store it, or ask for a smaller size or quality"
                )
            state.result["data"] = pybase64.b64encode_as_string(encoded.data)
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
        """Send results and dead letters, and wait until the brokers have acknowledged them, however long that takes.

        Raises `StopRun` when too many jobs fail.
        """
        for outcome in outcomes:
            self.guard.saw(isinstance(outcome, Failed))
        settled = list(outcomes)
        messages = [message for i, outcome in enumerate(outcomes) for message in self._messages(i, outcome)]
        while messages:
            refused = self._sent(messages)
            messages = []
            for message in refused:
                outcome = settled[message.outcome]
                if isinstance(outcome, Record):
                    settled[message.outcome] = outcome.failed("store", "its result is larger than the brokers take")
                    messages += self._messages(message.outcome, settled[message.outcome])
                else:
                    messages.append(_cut(message))
        for outcome in settled:
            if isinstance(outcome, Failed):
                self._metrics.count("dead_letters_total", 1.0, outcome.stage)
        return settled

    def answered(self, state: JobState) -> bool:
        """Send the result of an earlier delivery of this job again, if it is still there; return whether it was."""
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
        except (ValueError, KeyError, TypeError):  # truncated by a crash
            return False
        fields = {**self._fields(state, {}), "status": "done", **state.result, "duplicate": True}
        self._sent([self._result(0, state, fields)])
        self.guard.saw(failed=False)
        self._metrics.count("duplicates_total")
        self._metrics.count("jobs_total", 1.0, "duplicate", "")
        return True

    # ---- results and dead letters ----

    def _messages(self, index: int, outcome: Outcome) -> list[OutgoingMessage]:
        """Return the result of an outcome, and the dead letter of a failed one."""
        state = job_state(outcome)
        fields = self._fields(state, outcome.timings)
        if isinstance(outcome, Record):
            return [self._result(index, state, {**fields, "status": "done", **state.result})]
        reason = outcome.reason[:_LONGEST_HEADER]
        failed = {**fields, "status": "failed", "error": {"stage": outcome.stage, "reason": reason}}
        return [self._result(index, state, failed), self._dead_letter(index, outcome, state)]

    def _result(self, index: int, state: JobState, fields: dict[str, Any]) -> OutgoingMessage:
        """Return a result with the key and the headers of its job, such as trace and correlation ids."""
        message = state.message
        key = state.id.encode() if message.key is None else message.key
        return OutgoingMessage(self._config.results, key, orjson.dumps(fields), _own_headers(message), index)

    def _fields(self, state: JobState, timings: dict[str, float]) -> dict[str, Any]:
        message = state.message
        spent = {**state.timings, **timings}
        return {
            "version": VERSION,
            "id": state.id,
            **({"model": state.model, "model_sha256": state.model_sha256} if state.model else {}),
            "attempts": state.attempts,
            "worker": self._config.worker,
            "timings": {stage: round(seconds, 6) for stage, seconds in spent.items()},
            "job": {"topic": message.topic, "partition": message.partition, "offset": message.offset},
        }

    def _dead_letter(self, index: int, failed: Failed, state: JobState) -> OutgoingMessage:
        """Return the message of a job with the failure in additional headers."""
        message = state.message
        context = {
            "topic": message.topic,
            "partition": message.partition,
            "offset": message.offset,
            "timestamp": int(message.timestamp_s * 1000),
            "group": self._config.group,
            "stage": failed.stage,
            "reason": failed.reason,
            "model": state.model,
            "attempts": state.attempts,
            "worker": self._config.worker,
            "worker-version": installed("solstice-engine"),
        }
        own = [(HEADER + name, str(value).encode()[:_LONGEST_HEADER]) for name, value in context.items()]
        if message.undecodable:
            own.append((CUT, b"messages that cannot be decoded"))
        replays = [(name, value) for name, value in message.headers if name == REPLAYS]
        headers = [*_own_headers(message), *replays, *own]
        return OutgoingMessage(self._config.dead_letters, message.key, message.value, headers, index)

    # ---- waiting for storage and brokers ----

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

    def _sent(self, messages: Sequence[OutgoingMessage]) -> list[OutgoingMessage]:
        """Send until all are acknowledged; returns those that are too large for the brokers."""
        refused: list[OutgoingMessage] = []
        for pause_s in pauses_s():
            trouble: Exception | None = None
            waiting = [message for message in messages if not message.sent]
            for message, error in zip(waiting, self._producer.send(waiting), strict=True):
                message.sent = error is None or isinstance(error, TOO_LARGE)
                if isinstance(error, TOO_LARGE):
                    refused.append(message)
                elif error is not None:
                    trouble = error
            if trouble is None:
                self._up(True)
                break
            self._wait("Kafka", trouble, pause_s)
        return refused

    def _wait(self, what: str, error: Exception, pause_s: float) -> None:
        self._up(False)
        self._health.beat("pipeline")  # waiting is not being stuck
        self._metrics.count("retries_total", 1.0, "store")
        log.warning("%s takes no results at the moment; waiting: %s", what, error or type(error).__name__)
        if self._give_up.wait(pause_s):
            raise StopRun(f"{what} took no results until the end of the grace period: {error}.")

    def _up(self, up: bool) -> None:
        self._metrics.gauge("sink_up", float(up))
        self._health.require("sink", up)


def _described(record: Record[Encoded]) -> dict[str, Any]:
    encoded = record.payload
    return {
        "format": encoded.format,
        "width": encoded.width,
        "height": encoded.height,
        "bytes": len(encoded.data),
        "notes": list(encoded.notes),
    }


def _output_name(state: JobState, encoded: Encoded) -> str:
    """Return the result's name from the job, or one made of its id and the hash of all that decides the image."""
    job = state.job
    assert job is not None
    if job.output is not None:
        return job.output
    return f"{quote(job.id, safe='')[:150]}-{state.digest[:16]}{FORMATS[encoded.format.lower()]}"


def _own_headers(message: Message) -> list[tuple[str, bytes]]:
    """Return the headers that the producer of a job gave it."""
    return [(name, value) for name, value in message.headers if not name.startswith(HEADER)]


def _cut(message: OutgoingMessage) -> OutgoingMessage:
    """Return a message with the beginning of its value, for brokers that refuse the whole of it."""
    note = (CUT, f"value of {len(message.value)} bytes".encode())
    if any(name == CUT for name, _ in message.headers):
        raise StopRun(f"The topic {message.topic} refuses even a message of {len(message.value)} bytes.")
    return replace(message, value=message.value[:_KEPT_OF_LARGE], headers=[*message.headers, note], sent=False)
