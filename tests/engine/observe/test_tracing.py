"""Spans reach a collector with the right parents; an unavailable collector loses spans and delays no job."""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

import pytest

from engine.errors import SetupError
from engine.observe.metrics import NoMetrics
from engine.observe.prometheus import PrometheusMetrics, serve_metrics
from engine.observe.tracing import StageTimes, Tracer, traces_url
from tests.collector import Collector, collector

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
STAGES = [("fetch", 1_000, 2_000), ("acknowledge", 5_000, 6_000)]


@pytest.fixture
def received() -> Iterator[Collector]:
    with collector() as running:
        yield running


def test_the_span_of_a_job_is_a_child_of_its_senders_span(received: Collector) -> None:
    tracer = Tracer(received.url, "host:1", NoMetrics())
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert tracer.job("process jobs", STAGES, headers, {"solstice.job.id": "a"}, "broken") == TRACE
    tracer.close(10)
    (job,) = received.named("process jobs")
    assert (job.trace_id.hex(), job.parent_span_id.hex()) == (TRACE, PARENT)
    assert (job.start_time_unix_nano, job.end_time_unix_nano) == (1_000, 6_000)
    assert (job.status.code, job.status.message) == (2, "broken")
    found = [(span.name, span.start_time_unix_nano, span.end_time_unix_nano) for span in received.children(job)]
    assert sorted(found, key=lambda span: span[1]) == STAGES
    assert received.paths == {"/v1/traces"}
    (resource,) = received.resources
    assert (resource["service.name"], resource["service.instance.id"]) == ("solstice", "host:1")


def test_a_job_whose_sender_is_not_sampled_has_no_spans(received: Collector) -> None:
    metrics = PrometheusMetrics()
    tracer = Tracer(received.url, "host:1", metrics)
    assert tracer.job("process jobs", STAGES, {"traceparent": f"00-{TRACE}-{PARENT}-00"}, {}) == ""
    tracer.close(10)
    assert received.spans == []
    assert "solstice_spans_total{" not in metrics.exposition().decode()


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{TRACE}", f"00-{'0' * 32}-{PARENT}-01", "\udcff"])
def test_a_job_without_a_valid_parent_begins_a_trace(received: Collector, header: str) -> None:
    tracer = Tracer(received.url, "host:1", NoMetrics())
    trace_id = tracer.job("process jobs", STAGES, {"traceparent": header}, {})
    tracer.close(10)
    (job,) = received.named("process jobs")
    assert job.trace_id.hex() == trace_id != TRACE
    assert job.parent_span_id == b""


def test_the_environment_sets_the_name_of_the_service(received: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "seasons")
    tracer = Tracer(received.url, "host:1", NoMetrics())
    tracer.job("process jobs", STAGES, {}, {})
    tracer.close(10)
    assert [resource["service.name"] for resource in received.resources] == ["seasons"]


def test_an_outage_of_the_collector_loses_spans_and_logs_two_lines(
    received: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    metrics = PrometheusMetrics()
    tracer = Tracer(received.url, "host:1", metrics)

    def until(line: str) -> None:
        for _ in range(500):
            tracer.job("process jobs", STAGES, {}, {})
            if line in metrics.exposition().decode():
                return
            time.sleep(0.02)
        raise AssertionError(line)

    with caplog.at_level(logging.INFO, "engine.observe.tracing"):
        received.answers = False
        until('spans_total{result="failed"}')
        until('spans_total{result="made"} 30.0')
        received.answers = True
        until('spans_total{result="sent"}')
        tracer.close(10)
    told = [record.getMessage() for record in caplog.records]
    assert sum("takes no spans" in line for line in told) == 1
    assert sum("takes spans again" in line for line in told) == 1


def test_a_collector_that_never_answers_delays_no_job() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracer = Tracer(f"http://127.0.0.1:{silent.getsockname()[1]}", "host:1", NoMetrics())
        for _ in range(2_000):  # more spans than are kept
            assert tracer.job("process jobs", STAGES, {}, {})
        tracer.close(0.1)


def test_closing_ends_the_exporting_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    before = set(threading.enumerate())
    tracer = Tracer(f"http://127.0.0.1:{port}", "host:1", NoMetrics())  # the port is closed
    tracer.job("process jobs", STAGES, {}, {})
    tracer.close(0.1)
    for _ in range(200):
        left = [thread.name for thread in set(threading.enumerate()) - before]
        if not left:
            return
        time.sleep(0.02)
    raise AssertionError(left)


def test_the_stages_of_a_job_include_fetch_wait_and_acknowledge() -> None:
    times = StageTimes(begun_ns=2_000_000_000)
    times["read"] = 0.001
    times["decode"] = 0.002
    times["generate"] = 0.003
    assert dict(times) == {"read": 0.001, "decode": 0.002, "generate": 0.003}
    stages = times.complete(1_000_000_000)
    assert [name for name, _, _ in stages] == ["fetch", "read", "decode", "wait", "generate", "acknowledge"]
    assert stages[0] == ("fetch", 1_000_000_000, 2_000_000_000)
    by_name = {name: (start_ns, end_ns) for name, start_ns, end_ns in stages}
    assert by_name["decode"][1] - by_name["decode"][0] == 2_000_000
    assert by_name["wait"][0] == by_name["decode"][1]
    assert by_name["acknowledge"][0] == by_name["generate"][1]
    assert all(start_ns <= end_ns for start_ns, end_ns in by_name.values())


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("https://collector/otlp/", "https://collector/otlp/v1/traces"),
        ("http://collector:4318/v1/traces", "http://collector:4318/v1/traces"),
    ],
)
def test_the_path_of_traces_is_added_to_a_base_url(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url


@pytest.mark.parametrize("endpoint", ["", "collector:4318", "grpc://collector:4317", "http://", "/v1/traces"])
def test_an_endpoint_that_is_not_a_url_is_refused(endpoint: str) -> None:
    with pytest.raises(SetupError, match="--trace-endpoint must be the URL of an OTLP collector"):
        traces_url(endpoint)


def test_without_opentelemetry_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SetupError, match=r"Tracing needs OpenTelemetry: pip install .*\[tracing\]"):
        Tracer("http://localhost:4318", "host:1", NoMetrics())


def test_the_trace_of_a_job_is_the_exemplar_of_its_duration() -> None:
    metrics, server = serve_metrics(0)
    metrics.observe("job_seconds", 0.3, "winter", "done", trace_id=TRACE)
    asked = urllib.request.Request(f"http://127.0.0.1:{server.port}/metrics", headers={"Accept": OPEN_METRICS})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        text = answer.read().decode()
    server.close()
    line = next(line for line in text.splitlines() if 'outcome="done"' in line and 'le="0.5"' in line)
    assert f'# {{trace_id="{TRACE}"}} 0.3' in line
