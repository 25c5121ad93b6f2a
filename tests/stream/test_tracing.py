"""OpenTelemetry spans of real jobs, received by an OTLP collector in this process."""

from __future__ import annotations

import json
import urllib.request

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.collector import attributes, collector
from tests.stream.brokers import free_port
from tests.stream.stream import Stream, photo

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_spans_of_a_job_from_fetch_to_acknowledgement(stream: Stream) -> None:
    port = free_port()
    with collector() as received:
        # Given a worker with a collector, and jobs with and without a parent span
        worker = stream.worker(trace_endpoint=received.url, metrics_port=port)
        uri = stream.add_photo("a.jpg", photo())
        job = json.dumps({"id": "traced", "source": uri, "output": "a.jpg"}).encode()
        headers = [("traceparent", f"00-{TRACE}-{PARENT}-01".encode()), ("tracestate", b"vendor=1")]
        stream.send(job, b"k", headers)
        stream.results(1)
        stream.send(job, b"again", [("traceparent", b"\xff\xfe")])
        stream.submit(id="broken", source=stream.add_photo("broken.jpg", photo()[:100]))
        stream.flush()
        stream.results(3)
        request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": OPEN_METRICS})
        with urllib.request.urlopen(request, timeout=10) as answer:
            exposition = answer.read().decode()
        # When the worker has ended and its spans are exported
        stream.stop(worker)
    jobs = {str(attributes(span)["solstice.outcome"]): span for span in received.named(f"process {stream.jobs}")}
    assert jobs.keys() == {"done", "duplicate", "failed"}
    # Then the first has the parent from its message's header, and a span for each stage in order
    done = jobs["done"]
    assert (done.trace_id.hex(), done.parent_span_id.hex(), done.trace_state) == (TRACE, PARENT, "vendor=1")
    assert done.kind == Span.SPAN_KIND_CONSUMER
    assert attributes(done).items() >= {"solstice.job.id": "traced", "solstice.model": "tiny"}.items()
    assert attributes(done)["messaging.destination.name"] == stream.jobs
    stages = sorted(received.children(done), key=lambda span: span.start_time_unix_nano)
    names = ["fetch", "read", "inspect", "decode", "wait", "generate", "encode", "store", "acknowledge"]
    assert [span.name for span in stages] == names
    assert stages[0].start_time_unix_nano == done.start_time_unix_nano
    assert stages[-1].end_time_unix_nano == done.end_time_unix_nano
    assert {span.trace_id for span in stages} == {done.trace_id}
    # And each of the others has a trace of its own
    assert len({span.trace_id for span in jobs.values()}) == 3
    assert jobs["duplicate"].parent_span_id == b""
    assert [span.name for span in received.children(jobs["duplicate"])] == ["fetch", "read", "acknowledge"]
    failed = jobs["failed"]
    assert failed.status.code == 2
    assert failed.status.message
    assert attributes(failed)["error.type"] == stream_stage(stream)
    # And the latency histogram has the trace id as an exemplar
    assert f'trace_id="{TRACE}"' in exposition


OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def stream_stage(stream: Stream) -> str:
    """Return the stage that the dead letter names."""
    (letter,) = stream.dead_letters(1)
    stage: bytes = dict(letter.headers)["solstice-stage"]
    return stage.decode()


def test_an_unreachable_collector_delays_neither_jobs_nor_the_shutdown(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "32")
    monkeypatch.setattr("engine.stream.worker.TRACE_SHUTDOWN_S", 0.5)
    worker = stream.worker(trace_endpoint=f"http://127.0.0.1:{free_port()}")
    ids = stream.submit_photos(40)  # more spans than the queue holds
    assert {result["status"] for result in stream.results(len(ids))} == {"done"}
    stream.stop(worker)
    assert stream.committed() == len(ids)


def test_results_of_traced_jobs_have_the_fields_of_untraced_ones(stream: Stream) -> None:
    with collector() as received:
        worker = stream.worker(trace_endpoint=received.url)
        (id,) = stream.submit_photos(1)
        (traced,) = stream.results(1)
        stream.stop(worker)
    stream.worker()
    (other,) = stream.submit_photos(1, start=1)
    untraced = next(result for result in stream.results(2) if result["id"] == other)
    assert traced["id"] == id
    assert traced["timings"].keys() == untraced["timings"].keys()
    assert traced.keys() == untraced.keys()
