"""Write the Grafana dashboard: `python deploy/grafana/dashboard.py > deploy/grafana/dashboards/solstice.json`.

Each panel is one row of `ROWS`; position, ids and the rest of the JSON follow from that. `$group` and `$instance`
select workers; every query carries both. `$rate` is the rate of one worker that `solstice plan` prints.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

WHO = '{job=~"$group", instance=~"$instance"}'
"""Selector of the workers on show."""
WIDTH, HEIGHT, PER_ROW = 8, 8, 3
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}


@dataclass(frozen=True)
class Panel:
    """One panel: its queries by legend. `WHO` is written as `@` in a query."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    kind: str = "timeseries"


ROWS: dict[str, list[Panel]] = {
    "Work": [
        Panel("Images per second, by outcome", {"{{outcome}}": "sum by (outcome) (rate(solstice_jobs_total@[1m]))"}),
        Panel(
            "Time from message to result",
            {
                "median": "histogram_quantile(0.5, sum by (le) (rate(solstice_job_seconds_bucket@[5m])))",
                "99 %": "histogram_quantile(0.99, sum by (le) (rate(solstice_job_seconds_bucket@[5m])))",
            },
            "s",
        ),
        Panel(
            "Jobs per second, by model",
            {"{{model}}, {{outcome}}": "sum by (model, outcome) (rate(solstice_job_seconds_count@[1m]))"},
        ),
        Panel(
            "Share of the planned rate",
            {"share": "sum(rate(solstice_jobs_total@[1m])) / (count(solstice_build_info@) * $rate)"},
            "percentunit",
        ),
        Panel(
            "Lag and oldest job",
            {
                "lag (jobs)": "sum(solstice_lag_jobs@)",
                "oldest job (s)": "max(solstice_oldest_job_seconds@)",
            },
        ),
    ],
    "Stages": [
        Panel(
            "Latency of a stage's calls",
            {"{{le}}": "sum by (le) (increase(solstice_stage_seconds_bucket@[1m]))"},
            "s",
            "heatmap",
        ),
        Panel("Busy threads, by stage", {"{{stage}}": "sum by (stage) (rate(solstice_stage_seconds_sum@[1m]))"}),
        Panel(
            "Images per second, by stage",
            {"{{stage}}": "sum by (stage) (rate(solstice_stage_images_total@[1m]))"},
        ),
        Panel(
            "Images in a batch",
            {
                "mean": "sum(rate(solstice_batch_images_sum@[1m])) / sum(rate(solstice_batch_images_count@[1m]))",
                "90 %": "histogram_quantile(0.9, sum by (le) (rate(solstice_batch_images_bucket@[5m])))",
            },
        ),
        Panel(
            "Wait for a batch to fill, 99 %",
            {"99 %": "histogram_quantile(0.99, sum by (le) (rate(solstice_batch_wait_seconds_bucket@[5m])))"},
            "s",
        ),
        Panel("Jobs in flight", {"{{queue}}": "sum by (queue) (solstice_queue_jobs@)"}),
    ],
    "Trouble": [
        Panel(
            "Dead letters, by stage",
            {"{{stage}}": "sum by (stage) (rate(solstice_dead_letters_total@[5m]))"},
        ),
        Panel(
            "Retries, duplicates, crash suspects",
            {
                "retries, {{stage}}": "sum by (stage) (rate(solstice_retries_total@[5m]))",
                "duplicates": "sum(rate(solstice_duplicates_total@[5m]))",
                "crash suspects": "sum(rate(solstice_crash_suspects_total@[5m]))",
            },
        ),
        Panel(
            "Inputs and outputs usable",
            {
                "output, {{instance}}": "min by (instance) (solstice_sink_up@)",
                "inputs, {{instance}}": "min by (instance) (solstice_source_up@)",
                "producers replaced": "sum(rate(solstice_producer_rebuilds_total@[5m]))",
            },
        ),
        Panel(
            "Rebalances and commits",
            {
                "rebalances, {{kind}}": "sum by (kind) (rate(solstice_rebalances_total@[5m]))",
                "commits, {{result}}": "sum by (result) (rate(solstice_commits_total@[5m]))",
            },
        ),
        Panel(
            "Partitions",
            {
                "assigned": "sum(solstice_assigned_partitions@)",
                "paused": "sum(solstice_paused_partitions@)",
            },
        ),
        Panel(
            "Time since the last poll",
            {"{{instance}}": "time() - max by (instance) (solstice_last_poll_timestamp_seconds@)"},
            "s",
        ),
    ],
    "Resources": [
        Panel(
            "Messages in flight",
            {"bytes": "sum(solstice_in_flight_bytes@)"},
            "bytes",
        ),
        Panel("Jobs fetched", {"jobs": "sum(solstice_in_flight_jobs@)"}),
        Panel(
            "Memory of the processes",
            {"{{instance}}": "max by (instance) (process_resident_memory_bytes@)"},
            "bytes",
        ),
        Panel(
            "GPU memory",
            {"{{instance}} {{kind}}": "sum by (instance, kind) (solstice_gpu_memory_bytes@)"},
            "bytes",
        ),
        Panel("Trace spans", {"{{result}}": "sum by (result) (rate(solstice_spans_total@[5m]))"}),
        Panel("Generators in memory", {"{{instance}}": "max by (instance) (solstice_models_resident@)"}),
        Panel(
            "Workers and versions",
            {"{{version}}, torch {{torch}}": "count by (version, torch) (solstice_build_info@)"},
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append({"type": "row", "title": title, "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}, "panels": []})
        y += 1
        for place, panel in enumerate(row):
            x = place % PER_ROW * WIDTH
            panels.append(one(panel, {"h": HEIGHT, "w": WIDTH, "x": x, "y": y + place // PER_ROW * HEIGHT}))
        y += -(-len(row) // PER_ROW) * HEIGHT
    for number, shown in enumerate(panels, start=1):
        shown["id"] = number
    return {
        "uid": "solstice",
        "title": "Solstice",
        "tags": ["solstice"],
        "schemaVersion": 39,
        "version": 2,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                variable("group", "Group", "label_values(solstice_build_info, job)"),
                textbox("rate", "Images per second of one worker (solstice plan)", "1"),
                variable("instance", "Worker", 'label_values(solstice_build_info{job=~"$group"}, instance)'),
            ]
        },
        "panels": panels,
    }


def one(panel: Panel, position: dict[str, int]) -> dict[str, Any]:
    """Return the JSON of one panel at `position`."""
    targets = [
        {
            "refId": chr(ord("A") + place),
            "datasource": DATASOURCE,
            "expr": query.replace("@", WHO),
            "legendFormat": legend,
            **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
        }
        for place, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "type": panel.kind,
        "title": panel.title,
        "datasource": DATASOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    """Return a drop-down over the values of a label; all of them by default."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def textbox(name: str, label: str, value: str) -> dict[str, Any]:
    """Return a field for a number that only the reader knows."""
    return {
        "name": name,
        "label": label,
        "type": "textbox",
        "query": value,
        "current": {"text": value, "value": value},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")
