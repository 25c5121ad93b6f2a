"""Scrape a real worker with a real Prometheus: every shipped alert fires and clears, every dashboard query has series.

Durations are shortened (tests/deploy/prometheus.py); deploy/rules_test.yml tests the rules with the shipped ones.
"""

from __future__ import annotations

import itertools
import json
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.stream.client import close_member, make_consumer
from tests import ROOT
from tests.deploy.prometheus import RULES, Prometheus, hurried, running
from tests.stream.brokers import DurableBroker
from tests.stream.stream import Stream, eventually, photo
from tests.stream.test_poison import KILLER

PROVOKED = {
    "gone": {"SolsticeWorkerGone", "SolsticeWorkerDown"},
    "crash": {"SolsticeCrashSuspects"},
    "output": {"SolsticeSinkDown", "SolsticeNoProgress", "SolsticeOldestJob", "SolsticeLagGrows"},
    "input": {"SolsticeSourceDown"},
    "jobs": {"SolsticeDeadLetters", "SolsticeSlowJobs"},
    "rebalances": {"SolsticeRebalances"},
    "poll": {"SolsticePollStale"},
    "commits": {"SolsticeCommitFailures"},
}
WITHOUT_SERIES = {"GPU memory": "there is no GPU", "Trace spans": "tracing is off; see tests/stream/test_tracing.py"}
"""Panels without series here, and the reason."""
CHOSEN = {"$group": ".*", "$instance": ".*", "$rate": "100"}
"""Values of the dashboard's variables."""

pytestmark = pytest.mark.needs_prometheus


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture
def stream(broker: str, model: Path, tmp_path: Path, prometheus: Prometheus) -> Iterator[Stream]:
    """Topics and folders of one test, whose worker Prometheus scrapes."""
    made = scraped(broker, model, tmp_path, prometheus)
    yield made
    made.close()


def scraped(broker: str, model: Path, folder: Path, prometheus: Prometheus) -> Stream:
    options = {"metrics_port": prometheus.worker_port, "lag_every_s": 0.2, "max_dead_letters": 10_000}
    return Stream(broker, folder, model, partitions=1, options=options)


def fires(prometheus: Prometheus, names: set[str], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Wait until each of these alerts has fired, calling `meanwhile` repeatedly."""
    missing = set(names)

    def all_fired() -> bool:
        meanwhile()
        missing.difference_update(prometheus.firing())
        return not missing

    eventually(all_fired)


def clears(prometheus: Prometheus, names: set[str]) -> None:
    eventually(lambda: not prometheus.firing() & names)


def works(stream: Stream, prometheus: Prometheus, job: str) -> None:
    """Submit a job with this id and wait until it is done and no alert fires."""
    stream.submit(id=job, source=stream.add_photo(f"{job}.jpg", photo()), output=f"{job}.jpg")
    eventually(lambda: f"{job}.jpg" in stream.files())
    eventually(lambda: not prometheus.firing())


def old(stream: Stream, value: bytes, seconds: float) -> None:
    """Send a job with a timestamp that is `seconds` old."""
    stream._producer.send(stream.jobs, value=value, timestamp_ms=int((time.time() - seconds) * 1000))


def test_every_alert_is_provoked_here() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in rules if "alert" in rule} == set().union(*PROVOKED.values())


def test_only_durations_of_the_rules_are_shortened() -> None:
    def timeless(rules: str) -> list[dict[str, Any]]:
        without = re.sub(r"\[\w+\]|offset \w+|(?<=last_poll_timestamp_seconds > 0\) > )[\d.]+", "", rules)
        return [{**rule, "for": "for" in rule} for rule in yaml.safe_load(without)["groups"][0]["rules"]]

    shipped = RULES.read_text()
    assert timeless(shipped) == timeless(hurried(shipped))
    assert shipped != hurried(shipped)


def test_alerts_of_a_worker_that_a_job_kills_and_that_starts_again(stream: Stream, prometheus: Prometheus) -> None:
    # Given a worker that a job kills
    port = ("--metrics-port", str(prometheus.worker_port), "--instance", "worker-0", "--max-crashes", "1")
    victim = stream.process(*port, change=KILLER)
    stream.submit(id="pill", source=stream.add_photo("pill.jpg", photo(99)), output="pill.jpg")
    stream.flush()
    assert victim.wait(30) == -signal.SIGKILL
    # Then its absence is reported
    fires(prometheus, PROVOKED["gone"])
    # And once it has started again that ends, and the job that killed it is a suspect until it is done
    stream.worker(instance="worker-0", max_crashes=1)
    fires(prometheus, PROVOKED["crash"])
    eventually(lambda: "pill.jpg" in stream.files())
    clears(prometheus, PROVOKED["gone"] | PROVOKED["crash"])


def test_alerts_of_an_output_that_is_full(stream: Stream, prometheus: Prometheus) -> None:
    # Given a worker whose output is full, because its files may not exceed 100 bytes
    worker = stream.process(
        "--metrics-port",
        str(prometheus.worker_port),
        change="from engine.stream.config import StreamConfig\n"
        "StreamConfig.__init__.__kwdefaults__['lag_every_s'] = 0.2",
    )
    works(stream, prometheus, "before")
    _, most = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (100, most))
    # When jobs keep arriving, the first of them an old one
    old(stream, json.dumps({"id": "old", "source": "before.jpg"}).encode(), 16 * 60)
    job = json.dumps({"id": "job", "source": "before.jpg", "output": "job.jpg"}).encode()

    def submit() -> None:
        for _ in range(100):
            stream.send(job)

    for _ in range(12):
        submit()
    fires(prometheus, PROVOKED["output"], submit)
    # Then all alerts that follow from it clear once there is room
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (most, most))
    clears(prometheus, PROVOKED["output"])


def test_alert_of_an_input_that_is_unavailable(stream: Stream, prometheus: Prometheus) -> None:
    stream.worker()
    works(stream, prometheus, "before")
    away = stream.inputs.rename(stream.folder / "away")
    stream.submit(id="waits", source="before.jpg", output="waits.jpg")
    fires(prometheus, PROVOKED["input"])
    away.rename(stream.inputs)
    clears(prometheus, PROVOKED["input"])
    eventually(lambda: "waits.jpg" in stream.files())


def test_alerts_of_failed_and_of_slow_jobs(stream: Stream, prometheus: Prometheus) -> None:
    stream.worker()
    works(stream, prometheus, "before")
    fires(prometheus, PROVOKED["jobs"], lambda: old(stream, b"{", 180))
    clears(prometheus, PROVOKED["jobs"])


def test_alert_of_a_group_that_rebalances_all_the_time(
    stream: Stream, prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_quick(*arguments: Any, **settings: Any) -> Any:
        """Connect a consumer that learns of a rebalance within 0.1 s."""
        return make_consumer(*arguments, **{**settings, "heartbeat_interval_ms": 100})

    monkeypatch.setattr("engine.stream.member.make_consumer", make_quick)
    stream.worker()
    works(stream, prometheus, "before")

    def join_and_leave() -> None:
        member = make_quick(stream.connection, stream.jobs, group_id=stream.name)
        member.poll(timeout_ms=400)
        close_member(member, 5000)

    fires(prometheus, PROVOKED["rebalances"], join_and_leave)
    clears(prometheus, PROVOKED["rebalances"])


def test_alert_of_a_poll_that_hangs(stream: Stream, prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = stream.worker()
    works(stream, prometheus, "before")
    consumer, hangs = worker._source._member._consumer, threading.Event()
    poll = consumer.poll

    def hanging_poll(**settings: Any) -> Any:
        hangs.wait(60)
        return poll(**settings)

    monkeypatch.setattr(consumer, "poll", hanging_poll)
    fires(prometheus, PROVOKED["poll"])
    hangs.set()
    clears(prometheus, PROVOKED["poll"])


def test_alert_of_commits_without_a_broker(model: Path, tmp_path: Path, prometheus: Prometheus) -> None:
    # Given a worker with a broker of its own, which is killed while jobs are done
    with DurableBroker(tmp_path / "broker") as broker:
        stream = scraped(broker.address, model, tmp_path, prometheus)
        worker = stream.worker(session_timeout_s=6.0)
        works(stream, prometheus, "before")
        stream.submit_photos(100)
        eventually(lambda: len(stream.files()) > 20)
        broker.kill()
        # Then its commits fail until the broker is back
        fires(prometheus, PROVOKED["commits"])
        broker.start()
        clears(prometheus, PROVOKED["commits"])
        eventually(lambda: worker.health.missing() == [])
        stream.close()


def test_every_panel_of_the_dashboard_shows_series_of_a_worker_under_load(
    stream: Stream, prometheus: Prometheus
) -> None:
    stream.worker()
    stream.submit_photos(40)
    stream.flush()
    stream.results(40)
    panels = json.loads((ROOT / "deploy/grafana/dashboards/solstice.json").read_text())["panels"]
    queries = {
        (panel["title"], target["legendFormat"]): re.sub(r"\$\w+", lambda name: CHOSEN[name[0]], target["expr"])
        for panel in panels
        for target in panel.get("targets", [])
    }
    shown = {name: query for name, query in queries.items() if name[0] not in WITHOUT_SERIES}
    missing, numbers = dict(shown), itertools.count(40, 2)

    def all_have_series() -> bool:
        stream.submit_photos(2, start=next(numbers))
        for name in [name for name, query in missing.items() if prometheus.series(query)]:
            del missing[name]
        return not missing

    try:
        eventually(all_have_series, 30)
    except AssertionError:
        raise AssertionError(f"no series: {missing}") from None
    # And the panels named in WITHOUT_SERIES have none
    assert not [name for name, query in queries.items() if name not in shown and prometheus.series(query)]
    # And the throughput is above 0
    assert max(prometheus.series(queries["Images per second, by outcome", "{{outcome}}"])) > 0
