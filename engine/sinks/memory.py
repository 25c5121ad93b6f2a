"""A sink into a dictionary, for tests and for use from Python."""

from __future__ import annotations

from engine.records import Encoded, Failed, Outcome, Record, Stored


class MemorySink:
    """Keeps results and failures by key; safe from several threads, since each call is one assignment."""

    def __init__(self) -> None:
        self.results: dict[str, Encoded] = {}
        self.failures: dict[str, str] = {}

    def store(self, record: Record[Encoded]) -> Stored:
        """Keep the bytes."""
        encoded = record.payload
        self.results[record.key] = encoded
        return Stored.of(encoded, record.key)

    def reject(self, failed: Failed) -> None:
        """Keep the reason."""
        self.failures[failed.key] = failed.reason

    def settle(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Do nothing: nobody waits."""
        return outcomes
