"""Workers that are killed, stopped, joined by others: nothing is lost, and each job has one output."""

from __future__ import annotations

import random
import signal
import threading
import time
from functools import partial

from engine.stream.worker import Worker
from tests.stream.stream import Stream, eventually


def is_ready(worker: Worker) -> bool:
    """Whether it has partitions and can store."""
    return worker.health.missing() == []


def one_output_each(stream: Stream, ids: list[str]) -> dict[str, int]:
    """Check that every job is done and has its file; gives how many results each has."""
    results = stream.results(len(ids))
    assert {result["status"] for result in results} == {"done"}
    counts = dict.fromkeys(ids, 0)
    for result in results:
        counts[result["id"]] += 1
    assert all(counts.values())
    assert len(stream.files()) == len(ids)
    return counts


def test_a_worker_killed_in_the_middle_loses_nothing(strict_stream: Stream) -> None:
    # Given jobs on the topic and a worker that is killed once it has answered some of them
    stream = strict_stream
    ids = stream.submit_photos(600)
    victim = stream.process("--session-timeout", "6", "--max-in-flight", "64")
    eventually(lambda: len(stream.files()) > 30)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert len(stream.files()) < 600, "it was killed too late to show anything"
    # When another one takes over
    stream.worker(session_timeout_s=6.0)
    # Then every job has its result, no file is half-written, and what was done again gave the same file
    one_output_each(stream, ids)
    eventually(lambda: stream.committed() == 600)
    assert all(data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9" for data in stream.files().values())


def test_sigterm_drains_without_loss_or_duplicate(stream: Stream) -> None:
    ids = stream.submit_photos(600)
    first = stream.process("--max-in-flight", "64")
    eventually(lambda: len(stream.files()) > 30)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    done = len(stream.files())
    assert done < 600, "it was stopped too late to show anything"
    assert stream.committed() == done
    stream.worker()
    counts = one_output_each(stream, ids)
    assert set(counts.values()) == {1}


def test_three_workers_share_the_partitions(stream: Stream) -> None:
    workers = [stream.worker() for _ in range(3)]
    eventually(lambda: all(worker.health.missing() == [] for worker in workers))
    time.sleep(1)  # the last joiner's rebalance
    ids = stream.submit_photos(300)
    counts = one_output_each(stream, ids)
    assert set(counts.values()) == {1}
    assert stream.committed_eventually() == 300


def test_a_storm_of_rebalances_loses_nothing(stream: Stream) -> None:
    # Given two workers that stay, while jobs arrive and others come and go
    for _ in range(2):
        stream.worker()
    ids: list[str] = []
    calm = threading.Event()

    def send() -> None:
        while not calm.wait(0.3):
            ids.extend(stream.submit_photos(30, len(ids)))

    sender = threading.Thread(target=send)
    sender.start()
    # When members join and leave all the time; none leaves before it has joined, since the broker that tests start
    # would wait for it without end
    moods = random.Random(1)
    for _ in range(5):
        worker = stream.worker()
        eventually(partial(is_ready, worker))
        time.sleep(moods.uniform(0.0, 0.5))
        stream.stop(worker)
    calm.set()
    sender.join()
    # Then every job has its result; some have several, because the broker that tests start does not wait for members
    # that drain (Kafka does, for max.poll.interval.ms), and gives their jobs to others
    one_output_each(stream, ids)
    assert stream.committed_eventually() == len(ids)
