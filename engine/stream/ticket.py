"""What a Kafka job carries through the pipeline in `Record.ack`: its message, and what is learnt on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.stream.jobs import Job


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the jobs topic, as it came."""

    topic: str
    partition: int
    offset: int
    timestamp_s: float
    """Seconds since 1970."""
    key: bytes | None
    value: bytes = field(repr=False)
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def num_bytes(self) -> int:
        """Memory it takes, about."""
        return len(self.value) + len(self.key or b"") + 200

    @property
    def position(self) -> str:
        """Names it where it names itself not."""
        return f"{self.topic}-{self.partition}-{self.offset}"


@dataclass(slots=True)
class Ticket:
    """One job under way."""

    message: Message
    epoch: int
    """Of its partition's assignment: a ticket of an earlier one no longer moves the offset."""
    id: str
    wait_s: float
    """From the message's time stamp to the fetch."""
    job: Job | None = None
    digest: str = ""
    """See `Job.digest`; empty until the image is read, and for results that travel inline."""
    model_sha256: str = ""
    attempts: int = 1
    read_s: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)
    """Fields of the result that are known once the image is stored."""

    @property
    def timings(self) -> dict[str, float]:
        """Seconds before the first stage, for its record."""
        return {"wait": self.wait_s, "read": self.read_s}
