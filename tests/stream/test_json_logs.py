"""Whatever a worker with --log-format json writes is one JSON object a line."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from tests.stream.stream import Stream, photo


def parsed(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_worker_from_start_to_drain(stream: Stream) -> None:
    process = stream.process("--log-format", "json")
    stream.submit(id="damaged", source=stream.add_photo("damaged.jpg", photo(1, 400, 300)[:4000]), output="d.jpg")
    stream.submit(id="line\nbreak", source="missing.jpg")
    stream.submit_photos(3)
    stream.results(5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    lines = parsed(stream.folder / "0-worker.log")
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    messages = [line["message"] for line in lines]
    assert any("Assigned partitions" in message for message in messages)
    assert messages[-1].startswith("Worker ")
    assert messages[-1].endswith(" has left")


def test_a_worker_that_cannot_go_on(stream: Stream) -> None:
    process = stream.process("--log-format", "json", "--max-dead-letters", "1")
    for i in range(3):
        stream.send(b"{", key=f"{i}".encode())
    assert process.wait(60) == 2
    last = parsed(stream.folder / "0-worker.log")[-1]
    assert (last["level"], "jobs in a row failed" in last["message"]) == ("CRITICAL", True)
