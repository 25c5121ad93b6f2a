"""Metrics for Prometheus; the only file that imports its client, and only when it is asked for."""

from __future__ import annotations

import platform
from typing import Any

import torch

from engine.config import LOOPBACK
from engine.observe.health import Health, HealthServer
from engine.observe.metrics import METRICS, StageName
from engine.system.versions import installed

PREFIX = "solstice_"


class PrometheusMetrics:
    """Keeps every metric of `METRICS` in a registry of its own; importing takes the client's 50 ms."""

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
        self.gauge("build_info", 1.0, *_versions())

    def stage(self, name: StageName, seconds: float, images: int) -> None:
        """Put into the stage's histogram and count its images."""
        self.observe("stage_seconds", seconds, name)
        self.count("stage_images_total", images, name)

    def outcome(self, failed_in: StageName | str | None) -> None:
        """Count by outcome."""
        self.count("jobs_total", 1.0, *(("done", "") if failed_in is None else ("failed", failed_in)))

    def count(self, name: str, amount: float = 1.0, *labels: str) -> None:
        """Add to a counter."""
        self._child(name, labels).inc(amount)

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._child(name, labels).set(value)

    def observe(self, name: str, value: float, *labels: str) -> None:
        """Put a value into a histogram."""
        self._child(name, labels).observe(value)

    def forget(self, name: str, *labels: str) -> None:
        """Take away one labelled value, such as the lag of a partition that another worker owns now."""
        try:
            self._metrics[name].remove(*labels)
        except KeyError:
            return

    def exposition(self) -> bytes:
        """Give all metrics in Prometheus's text format."""
        from prometheus_client import generate_latest

        if torch.cuda.is_available():
            free, total = torch.cuda.mem_get_info()
            for kind, value in (("total", total), ("free", free), ("allocated", torch.cuda.memory_allocated())):
                self.gauge("gpu_memory_bytes", value, kind)
        return generate_latest(self._registry)

    def _child(self, name: str, labels: tuple[str, ...]) -> Any:
        metric = self._metrics[name]
        return metric.labels(*labels) if labels else metric


def serve_metrics(
    port: int, host: str = LOOPBACK, health: Health | None = None
) -> tuple[PrometheusMetrics, HealthServer]:
    """Make metrics and serve them at `http://host:port/metrics`, beside `/healthz` and `/readyz`.

    Port 0 takes any free one, which `HealthServer.port` tells. The server runs in a thread until it is closed.
    Raises `SetupError` when the port cannot be had.
    """
    metrics = PrometheusMetrics()
    return metrics, HealthServer(host, port, health or Health(), metrics.exposition)


def _versions() -> list[str]:
    return [installed("solstice-engine"), platform.python_version(), torch.__version__, installed("kafka-python")]
