"""Spans of jobs for OpenTelemetry. Its packages are imported only when tracing is on.

A job's spans are made when it has ended, from the times at which its stages ended: while a job is in progress nothing
is done for them but writing these down. Spans are sent by a thread of OpenTelemetry; when the collector is away they
are dropped, and no job waits for it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from engine.errors import SetupError
from engine.observe.metrics import Metrics
from engine.system.extras import install_hint
from engine.system.versions import installed

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan

log = logging.getLogger(__name__)

PROPAGATED = ("traceparent", "tracestate")
"""Headers of a message that name the parent of its spans (W3C Trace Context)."""
SPANS = ("fetch", "read", "inspect", "decode", "wait", "generate", "restore", "encode", "store", "acknowledge")
"""Names of the spans below that of the job, in order.

`fetch` is the wait in the worker's queue, `wait` that for a batch to fill and for the generator.
"""

_PATH = "/v1/traces"


class StageTimes(dict[str, float]):
    """Seconds by stage, as in `Record.timings`, that also remembers when each stage ran."""

    def __init__(self, begun_ns: int) -> None:
        """`begun_ns` is the time at which the job was begun, in nanoseconds since 1970, as all times here."""
        super().__init__()
        self.spans: dict[str, tuple[int, int]] = {}
        self.begun_ns = begun_ns

    def __setitem__(self, stage: str, seconds: float) -> None:
        """Note that a stage has ended now and took `seconds`."""
        super().__setitem__(stage, seconds)
        end_ns = time.time_ns()
        self.spans[stage] = end_ns - int(seconds * 1e9), end_ns

    def complete(self, fetched_ns: int) -> list[tuple[str, int, int]]:
        """Return name, start and end of each span of a job that is acknowledged now and was fetched at `fetched_ns`."""
        spans = dict(self.spans)
        spans["fetch"] = fetched_ns, self.begun_ns
        if "decode" in spans and "generate" in spans:
            spans["wait"] = spans["decode"][1], spans["generate"][0]
        spans["acknowledge"] = max(end_ns for _, end_ns in spans.values()), time.time_ns()
        return [(name, spans[name][0], max(spans[name])) for name in SPANS if name in spans]


class Tracer:
    """Sends the spans of jobs to an OTLP collector over HTTP."""

    def __init__(self, endpoint: str, instance: str, metrics: Metrics) -> None:
        """Send to the collector at `endpoint`, a base URL to which `/v1/traces` is added.

        `instance` is the name of this process. Headers, time-outs, sampling, batches and further attributes are taken
        from OpenTelemetry's own environment variables. Raises `SetupError` for a URL that is none, and where
        OpenTelemetry is not installed.
        """
        url = traces_url(endpoint)
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise SetupError(
                f"Tracing needs OpenTelemetry: {install_hint('tracing')}, or leave out --trace-endpoint."
            ) from None
        # Failures are logged once each time that they begin, by the exporter below.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        attributes = {"service.instance.id": instance, "service.version": installed("solstice-engine")}
        if "OTEL_SERVICE_NAME" not in os.environ and "service.name=" not in os.environ.get(
            "OTEL_RESOURCE_ATTRIBUTES", ""
        ):
            attributes["service.name"] = "solstice"
        self._metrics = metrics
        self._propagator = TraceContextTextMapPropagator()
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._exporter = _exporter(url, metrics)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("solstice", installed("solstice-engine"))
        log.info("Spans of jobs go to %s", url)

    def job(
        self,
        name: str,
        stages: list[tuple[str, int, int]],
        headers: Mapping[str, str],
        attributes: Mapping[str, Any],
        error: str | None = None,
    ) -> str:
        """Make the spans of a job that has ended; return its trace id in hexadecimal, empty if it is not sampled.

        The span called `name` goes from the first of `stages` to the last; its parent is named by `headers`. `error` is
        the reason why the job failed.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode, format_trace_id, set_span_in_context

        parent: Context = self._propagator.extract(headers)
        start_ns, end_ns = stages[0][1], stages[-1][2]
        span = self._tracer.start_span(name, parent, SpanKind.CONSUMER, attributes, start_time=start_ns)
        if not span.is_recording():
            return ""
        context = set_span_in_context(span)
        for stage, stage_start_ns, stage_end_ns in stages:
            self._tracer.start_span(stage, context, start_time=stage_start_ns).end(stage_end_ns)
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end_ns)
        self._metrics.count("spans_total", 1.0 + len(stages), "made")
        return format_trace_id(span.get_span_context().trace_id)

    def close(self, timeout_s: float) -> None:
        """Send what is left, within `timeout_s`; what cannot be sent by then is dropped."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing shutdown", daemon=True)
        closing.start()
        closing.join(timeout_s)
        if closing.is_alive():
            self._exporter.shutdown()  # ends the repetitions of a request that fails


def traces_url(endpoint: str) -> str:
    """Return the URL that spans are posted to; raises `SetupError` unless `endpoint` is an http or https URL."""
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SetupError(
            f"--trace-endpoint must be the URL of an OTLP collector, such as http://localhost:4318, got {endpoint!r}."
        )
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(_PATH) else path + _PATH).geturl()


def _exporter(url: str, metrics: Metrics) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import SpanExportResult

    class _CountedExporter(OTLPSpanExporter):
        """Counts what is sent and what is not, and logs when a collector goes away and comes back."""

        _is_away = False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = super().export(spans)
            away = result is not SpanExportResult.SUCCESS
            metrics.count("spans_total", len(spans), "failed" if away else "sent")
            if away and not self._is_away:
                log.warning("The trace collector at %s takes no spans; they are dropped until it does", url)
            elif self._is_away and not away:
                log.info("The trace collector at %s takes spans again", url)
            self._is_away = away
            return result

    return _CountedExporter(endpoint=url)
