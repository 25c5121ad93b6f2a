"""A job that kills workers is suspected, tried alone and becomes a dead letter; other jobs are not affected."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.stream.stream import Stream, eventually, photo

KILLER = """
import os, signal
from engine.codec.decode import Decoder
decode = Decoder.__call__
def killed(self, chunk):
    if any(item.key == "pill" and hasattr(item, "payload") for item in chunk):
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
    return decode(self, chunk)
Decoder.__call__ = killed
"""


def test_a_job_that_kills_workers_becomes_the_only_dead_letter(strict_broker: str, model: Path, tmp_path: Path) -> None:
    # Given a partition with an image in the middle whose decoding kills the worker
    stream = Stream(strict_broker, tmp_path, model, partitions=1)
    ids = stream.submit_photos(20)
    stream.submit(id="pill", source=stream.add_photo("pill.jpg", photo(99)), output="pill.jpg")
    stream.flush()
    ids += stream.submit_photos(20, start=20)
    # When a new worker is started after each crash
    crashes = 0
    for _ in range(6):
        worker = stream.process("--session-timeout", "6", "--max-crashes", "2", change=KILLER, wait=False)
        eventually(lambda: worker.poll() is not None or stream.committed() == 41)  # noqa: B023 (called at once)
        if worker.poll() is None:
            break
        assert worker.returncode == -signal.SIGKILL
        crashes += 1
    # Then two crashes make the job a suspect, a third one while it runs alone makes it a dead letter
    assert crashes == 3
    results = stream.results(41)
    assert {result["id"] for result in results if result["status"] == "done"} == set(ids)
    (letter,) = stream.dead_letters(1)
    headers = dict(letter.headers)
    assert letter.key == b"pill"
    assert headers["solstice-stage"] == b"crash"
    assert headers["solstice-reason"].startswith(b"3 workers crashed while this job was in progress")
    assert len(stream.files()) == 40
    stream.close()


def test_finished_jobs_are_committed_before_a_suspect_starts(strict_broker: str, model: Path, tmp_path: Path) -> None:
    # Given the last job of a partition, which kills three workers
    stream = Stream(strict_broker, tmp_path, model, partitions=1)
    stream.submit_photos(20)
    stream.submit(id="pill", source=stream.add_photo("pill.jpg", photo(99)), output="pill.jpg")
    stream.flush()
    for _ in range(3):
        worker = stream.process("--session-timeout", "6", change=KILLER, wait=False)
        assert worker.wait(120) == -signal.SIGKILL
    # Then the third worker, in which it ran alone, had committed the 20 jobs before it
    assert stream.committed() == 20
    stream.close()
