"""A real Prometheus scrapes a real worker; the shipped alerts fire and clear, the dashboard's queries have answers.

Not provoked here, and tested by deploy/rules_test.yml alone: SolsticeCommitFailures (the broker would have to refuse
commits), SolsticeRebalances (more than twenty within its window) and SolsticePollStale (a poll thread that hangs for a
minute).
"""

from __future__ import annotations

import itertools
import json
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT
from tests.deploy.prometheus import RULES, Prometheus, hurried, running
from tests.stream.stream import Stream, eventually, photo
from tests.stream.test_poison import KILLER

NOT_PROVOKED = {"SolsticeCommitFailures", "SolsticeRebalances", "SolsticePollStale"}
PROVOKED = {
    "gone": {"SolsticeWorkerGone", "SolsticeWorkerDown"},
    "crash": {"SolsticeCrashSuspects"},
    "output": {"SolsticeSinkDown", "SolsticeNoProgress", "SolsticeOldestJob", "SolsticeLagGrows"},
    "input": {"SolsticeSourceDown"},
    "jobs": {"SolsticeDeadLetters", "SolsticeSlowJobs"},
}
WITHOUT_SERIES = {"GPU memory": "there is no GPU", "Trace spans": "tracing is off; see tests/stream/test_tracing.py"}
"""Panels that have nothing to show here, and why."""
CHOSEN = {"$group": ".*", "$instance": ".*", "$rate": "100"}
"""What a reader of the dashboard has chosen."""

pytestmark = pytest.mark.needs_prometheus


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with running(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture
def stream(broker: str, model: Path, tmp_path: Path, prometheus: Prometheus) -> Iterator[Stream]:
    """Give topics and folders of one test, whose worker Prometheus scrapes."""
    options = {"metrics_port": prometheus.worker_port, "lag_every_s": 0.2, "max_dead_letters": 10_000}
    made = Stream(broker, tmp_path, model, partitions=1, options=options)
    yield made
    made.close()


def fires(prometheus: Prometheus, names: set[str], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Wait until each of these alerts has fired; `meanwhile` is called again and again."""
    missing = set(names)

    def all_fired() -> bool:
        meanwhile()
        missing.difference_update(prometheus.firing())
        return not missing

    eventually(all_fired)


def clears(prometheus: Prometheus, names: set[str]) -> None:
    eventually(lambda: not prometheus.firing() & names)


def works(stream: Stream, prometheus: Prometheus, job: str) -> None:
    """Wait until a job of this name is done and no alert fires."""
    stream.submit(id=job, source=stream.add_photo(f"{job}.jpg", photo()), output=f"{job}.jpg")
    eventually(lambda: f"{job}.jpg" in stream.files())
    eventually(lambda: not prometheus.firing())


def old(stream: Stream, value: bytes, seconds: float) -> None:
    """Send a job with the time stamp of a message that has waited."""
    stream._producer.send(stream.jobs, value=value, timestamp_ms=int((time.time() - seconds) * 1000))


def test_every_alert_is_provoked_here_or_named_with_a_reason() -> None:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert {rule["alert"] for rule in rules if "alert" in rule} == NOT_PROVOKED.union(*PROVOKED.values())


def test_hurrying_the_rules_changes_durations_only() -> None:
    def timeless(rules: str) -> list[dict[str, Any]]:
        ranges = re.sub(r"\[\w+\]|offset \w+", "", rules)
        return [{**rule, "for": "for" in rule} for rule in yaml.safe_load(ranges)["groups"][0]["rules"]]

    shipped = RULES.read_text()
    assert timeless(shipped) == timeless(hurried(shipped))
    assert shipped != hurried(shipped)


def test_a_worker_that_a_job_kills_and_that_comes_back(stream: Stream, prometheus: Prometheus) -> None:
    # Given a worker that a job kills
    port = ("--metrics-port", str(prometheus.worker_port), "--instance", "worker-0", "--max-crashes", "1")
    victim = stream.process(*port, change=KILLER)
    stream.submit(id="pill", source=stream.add_photo("pill.jpg", photo(99)), output="pill.jpg")
    stream.flush()
    assert victim.wait(30) == -signal.SIGKILL
    # Then its absence is noticed
    fires(prometheus, PROVOKED["gone"])
    # And once it is back, that ends, and the job that killed it is a suspect until it has been done
    stream.worker(instance="worker-0", max_crashes=1)
    fires(prometheus, PROVOKED["crash"])
    eventually(lambda: "pill.jpg" in stream.files())
    clears(prometheus, PROVOKED["gone"] | PROVOKED["crash"])


def test_an_output_that_takes_nothing(stream: Stream, prometheus: Prometheus) -> None:
    # Given a worker whose output is full: files may not grow beyond some bytes
    worker = stream.process(
        "--metrics-port",
        str(prometheus.worker_port),
        change="from engine.stream.config import StreamConfig\n"
        "StreamConfig.__init__.__kwdefaults__['lag_every_s'] = 0.2",
    )
    works(stream, prometheus, "before")
    _, most = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (100, most))
    # When jobs keep coming, the first of them an old one
    old(stream, json.dumps({"id": "old", "source": "before.jpg"}).encode(), 16 * 60)
    job = json.dumps({"id": "job", "source": "before.jpg", "output": "job.jpg"}).encode()

    def submit() -> None:
        for _ in range(100):
            stream.send(job)

    for _ in range(12):
        submit()
    fires(prometheus, PROVOKED["output"], submit)
    # Then everything that follows from it is over once there is room
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (most, most))
    clears(prometheus, PROVOKED["output"])


def test_an_input_that_is_away(stream: Stream, prometheus: Prometheus) -> None:
    stream.worker()
    works(stream, prometheus, "before")
    away = stream.inputs.rename(stream.folder / "away")
    stream.submit(id="waits", source="before.jpg", output="waits.jpg")
    fires(prometheus, PROVOKED["input"])
    away.rename(stream.inputs)
    clears(prometheus, PROVOKED["input"])
    eventually(lambda: "waits.jpg" in stream.files())


def test_jobs_that_fail_and_jobs_that_were_slow(stream: Stream, prometheus: Prometheus) -> None:
    stream.worker()
    works(stream, prometheus, "before")
    fires(prometheus, PROVOKED["jobs"], lambda: old(stream, b"{", 180))
    clears(prometheus, PROVOKED["jobs"])


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
    # And those that have none here have none for the reason that is given
    assert not [name for name, query in queries.items() if name not in shown and prometheus.series(query)]
    # And the work that was done is in them
    assert max(prometheus.series(queries["Images per second, by outcome", "{{outcome}}"])) > 0
