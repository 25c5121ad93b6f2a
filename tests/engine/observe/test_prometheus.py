"""Names, units and values of metrics, and their server, which listens on the loopback address by default."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from engine.errors import SetupError
from engine.observe.health import Health
from engine.observe.metrics import METRICS
from engine.observe.prometheus import PrometheusMetrics, serve_metrics


def test_every_metric_is_exposed_with_its_labels_and_help() -> None:
    metrics = PrometheusMetrics()
    for metric in METRICS:
        values = [f"a {label}" for label in metric.labels]
        if metric.kind == "counter":
            metrics.count(metric.name, 3.0, *values)
        elif metric.kind == "gauge":
            metrics.gauge(metric.name, 3.0, *values)
        else:
            metrics.observe(metric.name, 3.0, *values)
    text = metrics.exposition().decode()
    for metric in METRICS:
        labels = ",".join(f'{label}="a {label}"' for label in sorted(metric.labels))
        name = f"solstice_{metric.name}{'_sum' if metric.kind == 'histogram' else ''}"
        assert f"{name}{{{labels}}} 3.0".replace("{}", "") in text.splitlines()
        assert f"# HELP solstice_{metric.name} {metric.help}" in text


def test_names_follow_the_kind_of_the_metric() -> None:
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric.name
        assert list(metric.buckets) == sorted(metric.buckets)
        assert not {"id", "uri", "path", "error"} & set(metric.labels), "a label must not grow without end"


def test_stages_and_outcomes_are_counted() -> None:
    metrics = PrometheusMetrics()
    metrics.stage("decode", 0.3, 4)
    metrics.stage("decode", 0.2, 4)
    metrics.outcome(None)
    metrics.outcome("decode")
    text = metrics.exposition().decode()
    for line in (
        'solstice_stage_images_total{stage="decode"} 8.0',
        'solstice_stage_seconds_count{stage="decode"} 2.0',
        'solstice_stage_seconds_sum{stage="decode"} 0.5',
        'solstice_jobs_total{outcome="done",reason=""} 1.0',
        'solstice_jobs_total{outcome="failed",reason="decode"} 1.0',
    ):
        assert line in text.splitlines()


def test_the_series_of_a_revoked_partition_is_removed() -> None:
    metrics = PrometheusMetrics()
    metrics.gauge("lag_jobs", 5.0, "0")
    metrics.gauge("lag_jobs", 6.0, "1")
    metrics.forget("lag_jobs", "0")
    metrics.forget("lag_jobs", "7")
    text = metrics.exposition().decode()
    assert 'solstice_lag_jobs{partition="1"} 6.0' in text
    assert 'partition="0"' not in text


def test_two_runs_in_one_process_have_separate_metrics() -> None:
    one, other = PrometheusMetrics(), PrometheusMetrics()
    one.outcome(None)
    assert b'solstice_jobs_total{outcome="done",reason=""} 1.0' in one.exposition()
    assert b'solstice_jobs_total{outcome="done",reason=""} 0.0' in other.exposition()


def test_counters_are_exposed_as_zero_before_the_first_event() -> None:
    """`rate` and `increase` do not count an event that is the first sample of its series."""
    before = PrometheusMetrics().exposition().decode().splitlines()
    for line in (
        'solstice_jobs_total{outcome="done",reason=""} 0.0',
        'solstice_commits_total{result="failed"} 0.0',
        'solstice_dead_letters_total{stage="crash"} 0.0',
        "solstice_crash_suspects_total 0.0",
    ):
        assert line in before


def test_versions_and_memory_of_the_process_are_exposed() -> None:
    text = PrometheusMetrics().exposition().decode()
    assert 'solstice_build_info{kafka_python="' in text
    assert "process_resident_memory_bytes" in text


def test_metrics_are_served_on_the_loopback_address_until_closed() -> None:
    health = Health()
    health.require("model", False)
    metrics, server = serve_metrics(0, health=health)
    url = f"http://127.0.0.1:{server.port}"
    metrics.outcome(None)
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert b"solstice_jobs_total" in answer.read()
    for path, status in (("/readyz", 503), ("/nothing", 404)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}{path}", timeout=10)
        assert refused.value.code == status
        refused.value.close()
    server.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/metrics", timeout=10)


def test_a_port_in_use_is_an_error_that_names_the_option() -> None:
    _, server = serve_metrics(0)
    with pytest.raises(SetupError, match="choose another --metrics-port"):
        serve_metrics(server.port)
    server.close()
