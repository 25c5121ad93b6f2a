"""Metrics for Prometheus. Its client library is imported only when metrics are served."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from engine.config import LOOPBACK
from engine.observe.health import Health, HealthServer
from engine.observe.metrics import METRICS, StageName
from engine.system.versions import installed

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

PREFIX = "solstice_"


class PrometheusMetrics:
    """All metrics of `METRICS` in a Prometheus registry of their own."""

    def __init__(self) -> None:
        from prometheus_client import (
            CollectorRegistry,
            Counter,
            Gauge,
            GCCollector,
            Histogram,
            PlatformCollector,
            ProcessCollector,
        )

        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        kinds: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        self._metrics: dict[str, Any] = {
            metric.name: kinds[metric.kind](
                PREFIX + metric.name,
                metric.help,
                metric.labels,
                registry=self._registry,
                **({"buckets": metric.buckets} if metric.buckets else {}),
            )
            for metric in METRICS
        }
        for metric in METRICS:
            for labels in metric.initial:
                self._child(metric.name, labels)
        self.gauge("build_info", 1.0, *_versions())

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Record the stage's duration and count its images."""
        self.observe("stage_seconds", seconds, name)
        self.count("stage_images_total", images, name)

    def outcome(self, failed_in: StageName | str | None) -> None:
        """Count one image by outcome."""
        self.count("jobs_total", 1.0, *(("done", "") if failed_in is None else ("failed", failed_in)))

    def count(self, name: str, amount: float = 1.0, *labels: str) -> None:
        """Add to a counter."""
        self._child(name, labels).inc(amount)

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._child(name, labels).set(value)

    def observe(self, name: str, value: float, *labels: str, trace_id: str = "") -> None:
        """Record a value in a histogram."""
        self._child(name, labels).observe(value, {"trace_id": trace_id} if trace_id else None)

    def forget(self, name: str, *labels: str) -> None:
        """Remove one labelled value, such as the lag of a partition that was revoked."""
        try:
            self._metrics[name].remove(*labels)
        except KeyError:
            return

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        from prometheus_client import generate_latest

        self._update()
        return generate_latest(self._registry)

    def app(self) -> WSGIApplication:
        """Return the WSGI application of Prometheus's client that serves these metrics."""
        from prometheus_client import make_wsgi_app

        serve = make_wsgi_app(self._registry)

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            self._update()
            body: Iterable[bytes] = serve(environ, start_response)
            return body

        return app

    def _update(self) -> None:
        """Measure what is only known when it is asked for."""
        torch = sys.modules.get("torch")  # without torch loaded this process uses no GPU
        if torch is not None and torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            for kind, value in (("total", total), ("free", free), ("allocated", torch.cuda.memory_allocated())):
                self.gauge("gpu_memory_bytes", value, kind)

    def _child(self, name: str, labels: tuple[str, ...]) -> Any:
        metric = self._metrics[name]
        return metric.labels(*labels) if labels else metric


def serve_metrics(
    port: int, host: str = LOOPBACK, health: Health | None = None
) -> tuple[PrometheusMetrics, HealthServer]:
    """Serve metrics at `http://host:port/metrics`, beside `/healthz` and `/readyz`, from a thread until it is closed.

    Port 0 selects a free port, available as `HealthServer.port`. Raises `SetupError` if the port cannot be bound.
    """
    metrics = PrometheusMetrics()
    return metrics, HealthServer(host, port, health or Health(), metrics.app())


def _versions() -> list[str]:
    return [installed("solstice-engine"), platform.python_version(), installed("torch"), installed("kafka-python")]
