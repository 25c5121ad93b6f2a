"""/healthz, /readyz and the metrics in each state of a worker that docs/streaming.md lists."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from engine.stream.config import StreamConfig
from engine.stream.worker import Worker
from tests import ROOT
from tests.stream.brokers import free_port, tansu
from tests.stream.stream import Stream, eventually


def probe(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the JSON body of a probe."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=10) as answer:
            return int(answer.status), json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def waits_for(port: int, *names: str) -> bool:
    status, body = probe(port, "readyz")
    return set(body["waiting_for"]) == set(names) and status == (503 if names else 200)


def metric(port: int, name: str) -> dict[str, float]:
    """Return the values of a metric, by the text of their labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith(name)]
    return {line.rsplit(" ", 1)[0].removeprefix(name): float(line.rsplit(" ", 1)[1]) for line in lines}


def test_probes_of_a_ready_and_of_a_draining_worker(stream: Stream) -> None:
    port = free_port()
    worker = stream.worker(metrics_port=port)
    eventually(lambda: waits_for(port))
    assert probe(port, "healthz") == (200, {"ok": True, "waiting_for": []})
    stream.stop(worker)
    assert "running" in worker.health.missing()
    assert worker.health.reasons()["running"].startswith("draining")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_exits_with_0_and_logs_one_json_line(stream: Stream, number: signal.Signals) -> None:
    """Until then /readyz names the step of the start."""
    port = free_port()
    change = """
import time, engine.stream.models as models
models.load_generator = lambda path: time.sleep(60)
"""
    process = stream.process("--log-format", "json", "--metrics-port", str(port), change=change, wait=False)
    loading = re.compile(r"loading and compiling tiny, \d+ s")
    eventually(lambda: answers(port) and loading.fullmatch(probe(port, "readyz")[1]["reasons"]["model"]) is not None)
    assert waits_for(port, "running", "model")
    assert probe(port, "healthz")[0] == 200
    process.send_signal(number)
    assert process.wait(20) == 0
    lines = [json.loads(line) for line in stream.log().read_text().splitlines()]
    assert lines[-1]["message"] == "Stopped during the start; no job was taken"


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def test_a_worker_without_reachable_brokers_is_healthy_but_not_ready(model: Path, tmp_path: Path) -> None:
    port, broker_port = free_port(), free_port()
    with tansu(tmp_path / "first.log", broker_port) as brokers:
        stream = Stream(brokers, tmp_path, model)
        stream.worker(metrics_port=port, session_timeout_s=6.0, unassigned_s=9.0)
        eventually(lambda: waits_for(port))
    eventually(lambda: "brokers" in probe(port, "readyz")[1]["waiting_for"])
    assert "the brokers do not answer" in probe(port, "readyz")[1]["reasons"]["brokers"]
    time.sleep(6)  # longer without an assignment than a worker whose brokers answer may be
    assert probe(port, "healthz")[0] == 200
    with tansu(tmp_path / "second.log", broker_port):
        (tmp_path / "in").rename(tmp_path / "in-before")
        again = Stream(brokers, tmp_path, model, name=stream.name)
        eventually(lambda: waits_for(port))
        again.close()
        stream.close()


def test_a_worker_without_an_assignment_for_too_long_is_unhealthy(stream: Stream) -> None:
    """Happens when a group never completes a rebalance although the brokers answer."""
    ended: list[int] = []
    worker = Worker(stream.config(unassigned_s=1.0), end_process=ended.append)
    worker._source._member._joined(False)
    worker.health.expect("assignment", 1.0)
    eventually(lambda: worker.health.silent() == ["assignment"], 5)
    assert "assigned" in worker.health.missing()
    worker._sink.close(1)


def test_the_lag_is_reported_while_partitions_are_paused(stream: Stream) -> None:
    # Given a worker whose output is unavailable and that has paused fetching, while jobs arrive
    port = free_port()
    worker = stream.worker(metrics_port=port, max_in_flight=4)
    eventually(lambda: waits_for(port))
    stream.outputs.rename(stream.folder / "unplugged")
    stream.submit_photos(60)
    eventually(lambda: waits_for(port, "sink"))
    eventually(lambda: sum(metric(port, "solstice_lag_jobs").values()) == 60)
    # Then the lag has a series for every partition, even without a fetched job, and falls to 0 afterwards
    assert len(metric(port, "solstice_lag_jobs")) == stream.partitions
    (stream.folder / "unplugged").rename(stream.outputs)
    stream.results(60)
    eventually(lambda: sum(metric(port, "solstice_lag_jobs").values()) == 0)
    # And a partition that moved to another worker is no longer reported
    other = stream.worker()
    eventually(lambda: other.health.missing() == [] and len(metric(port, "solstice_lag_jobs")) < stream.partitions)
    stream.stop(other)
    stream.stop(worker)


def test_the_table_of_states_names_every_check() -> None:
    """These are the checks that the tests here, in test_sources.py, test_bad_input.py and test_worker.py provoke."""
    text = (ROOT / "docs/streaming.md").read_text()
    table = text[text.index("| State |") :].split("\n\n")[0]
    for name in ("running", "model", "assigned", "brokers", "sink", "source", "poll", "pipeline", "assignment"):
        assert f"`{name}`" in table, name


def test_an_idle_worker_uses_less_than_one_percent_of_a_core(strict_stream: Stream) -> None:
    """Measured in processor time, with the default fetch wait, which this broker observes."""
    process = strict_stream.process("--fetch-wait", str(StreamConfig.fetch_wait_s))

    def cpu_s() -> float:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / 100

    time.sleep(3)  # let the work that follows the join finish
    before_s, started_s = cpu_s(), time.monotonic()
    time.sleep(10)
    assert cpu_s() - before_s < 0.01 * (time.monotonic() - started_s)
    process.terminate()
    assert process.wait(30) == 0
