"""Kill, stop, add and replace workers: no job is lost, and each has one output."""

from __future__ import annotations

import random
import signal
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import NewTopic

from engine.stream.client import close_member, make_admin, make_consumer, poll_member
from engine.stream.worker import STUCK_EXIT_CODE, Worker
from tests.stream.brokers import free_port, tansu
from tests.stream.stream import Stream, eventually


def is_ready(worker: Worker) -> bool:
    """Return whether the worker passes all checks of /readyz."""
    return worker.health.missing() == []


def one_output_each(stream: Stream, ids: list[str]) -> dict[str, int]:
    """Check that every job is done and has its file; return the number of results of each."""
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


def test_a_storm_of_rebalances_loses_nothing(strict_stream: Stream) -> None:
    """Uses the broker that removes absent members: on a busy machine a client may begin to join twice."""
    # Given two workers that stay, while jobs arrive and others come and go
    stream = strict_stream
    for _ in range(2):
        stream.worker(session_timeout_s=6.0)
    ids: list[str] = []
    calm = threading.Event()

    def send() -> None:
        while not calm.wait(0.3):
            ids.extend(stream.submit_photos(30, len(ids)))

    sender = threading.Thread(target=send)
    sender.start()
    # When members join and leave all the time
    moods = random.Random(1)
    for _ in range(4):
        worker = stream.worker(session_timeout_s=6.0)
        eventually(partial(is_ready, worker))
        time.sleep(moods.uniform(0.0, 0.5))
        stream.stop(worker)
    calm.set()
    sender.join()
    # Then every job has its result, some several: members that drain for longer than the broker waits lose their jobs
    one_output_each(stream, ids)
    assert stream.committed_eventually() == len(ids)


def test_a_member_that_leaves_a_group_that_has_gone_on_is_not_waited_for(stream: Stream) -> None:
    # Given a member whose group has gone on to another generation, as kafka-python remembers it after a commit
    def member() -> Any:
        consumer = make_consumer(stream.connection, stream.jobs, group_id=stream.name)
        eventually(lambda: consumer.poll(timeout_ms=200) == {} and bool(consumer.assignment()))
        return consumer

    consumer = member()
    coordinator = consumer._coordinator
    coordinator.reset_generation(member_id=coordinator.group_metadata().member_id)
    # When it leaves, the next one gets the partitions, though this broker never notices that a member is gone
    close_member(consumer, 5000)
    after = member()
    assert len(after.assignment()) == stream.partitions
    close_member(after, 5000)


def test_a_join_that_completes_between_two_polls_is_not_lost(stream: Stream) -> None:
    # Given a leader that joins again because the metadata of its topic have changed
    consumer = make_consumer(stream.connection, stream.jobs, group_id=stream.name)
    eventually(lambda: poll_member(consumer, 200) == {} and bool(consumer.assignment()))
    coordinator = consumer._coordinator
    coordinator._assignment_snapshot = {}
    # When the poll ends before the broker has answered, and the answer comes before the next poll
    eventually(lambda: poll_member(consumer, 1) == {} and coordinator.rejoining)
    eventually(lambda: coordinator._join_task.is_done)
    # Then it is a member again
    eventually(lambda: poll_member(consumer, 200) == {} and coordinator.stable(), seconds=20)
    close_member(consumer, 5000)


def test_of_two_workers_with_one_name_the_first_stops_and_says_why(stream: Stream) -> None:
    first = stream.process("--instance", "pod-0")
    ids = stream.submit_photos(20)
    one_output_each(stream, ids)
    stream.worker(instance="pod-0")
    assert first.wait(30) == 2
    assert "solstice: Another worker has joined under the name pod-0" in stream.log().read_text()
    assert "Traceback" not in stream.log().read_text()
    one_output_each(stream, ids + stream.submit_photos(20, start=20))


def test_a_poll_that_is_stuck_ends_the_process_for_one_of_the_same_name_to_take_over(stream: Stream) -> None:
    """Uses the broker that never removes absent members: only static membership (KIP-345) can take over here."""
    # Given a worker whose client never comes back from polling once jobs have come
    change = """
import time, kafka
from engine.stream.config import StreamConfig
StreamConfig.__init__.__kwdefaults__["poll_stuck_s"] = 2.0
poll = kafka.KafkaConsumer.poll
def stuck(self, **settings):
    found = poll(self, **settings)
    if found:
        time.sleep(600)
    return found
kafka.KafkaConsumer.poll = stuck
"""
    process = stream.process("--instance", "pod-0", change=change)
    ids = stream.submit_photos(10)
    # Then its watchdog ends it, nothing is committed, and its successor does the jobs
    assert process.wait(30) == STUCK_EXIT_CODE
    assert "No sign of life from poll" in stream.log().read_text()
    assert stream.committed() == 0
    stream.worker(instance="pod-0")
    one_output_each(stream, ids)


def test_a_topic_that_is_deleted_stops_the_worker_with_a_sentence(stream: Stream) -> None:
    # Given a worker that has done some jobs
    change = "import engine.stream.member as member; member.TOPIC_GONE_S = 2.0"
    process = stream.process(change=change)
    stream.submit_photos(10)
    stream.results(10)
    eventually(lambda: stream.committed() == 10)
    # When the topic is deleted
    admin = make_admin(stream.connection)
    admin.delete_topics([stream.jobs])
    admin.close()
    # Then the worker ends, with everything it has done stored and no traceback
    assert process.wait(60) == 2
    said = stream.log().read_text()
    assert f"solstice: The topic {stream.jobs} is gone; create it again and start the worker." in said
    assert "Traceback" not in said
    assert len(stream.files()) == 10


def test_a_topic_that_is_made_anew_is_read_from_its_start(
    strict_broker: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that has read a topic up to its tenth job
    monkeypatch.setattr("engine.stream.connection.METADATA_AGE_S", 2.0)
    stream = Stream(strict_broker, tmp_path, model, partitions=1)
    worker = stream.worker(session_timeout_s=6.0)
    stream.submit_photos(10)
    stream.results(10)
    eventually(lambda: stream.committed() == 10)
    # When the topic is made anew and has more jobs than that before anyone looks
    admin = make_admin(stream.connection)
    admin.delete_topics([stream.jobs])
    admin.create_topics([NewTopic(stream.jobs, 1, 1)])
    admin.close()
    ids = stream.submit_photos(25, start=10)
    # Then none of them is skipped
    assert set(ids) <= {result["id"] for result in stream.results(35)}
    eventually(lambda: stream.committed() == 25)
    stream.stop(worker)
    stream.close()


def test_a_broker_that_comes_back_without_its_memory_gets_a_new_producer(model: Path, tmp_path: Path) -> None:
    """The restarted broker has lost the sequence numbers of the worker's producer, which cannot recover from that."""
    port, metrics_port = free_port(), free_port()
    with tansu(tmp_path / "first.log", port) as broker:
        before = Stream(broker, tmp_path, model)
        worker = before.worker(metrics_port=metrics_port, session_timeout_s=6.0)
        one_output_each(before, before.submit_photos(10))
    with tansu(tmp_path / "second.log", port):
        (tmp_path / "in").rename(tmp_path / "in-before")
        after = Stream(broker, tmp_path, model, name=before.name)
        ids = after.submit_photos(20)
        after.results(20)
        assert len(after.files()) == len(ids)
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as answer:
            assert "solstice_producer_rebuilds_total 0.0" not in answer.read().decode()
        eventually(lambda: worker.health.missing() == [])
        before.close()
        after.close()
