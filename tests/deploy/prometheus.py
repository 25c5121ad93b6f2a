"""Run a real Prometheus with the shipped alert rules, whose durations are shortened."""

from __future__ import annotations

import json
import math
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests import ROOT
from tests.stream.brokers import free_port, wait_for_port

RULES = ROOT / "deploy/rules.yml"

HURRY = 600
"""Factor by which durations of the rules are shortened: half an hour becomes 3 s."""
SHORTEST_RANGE_S = 2.0
"""Ranges are not shortened below this, which holds ten samples."""
REBALANCES_RANGE_S = 8.0
"""Range of SolsticeRebalances, in which a member can join and leave often enough."""
POLL_STALE_S = 3.0
"""Threshold of SolsticePollStale, in place of a minute."""
EVERY_S = 0.2
"""Interval of scrapes and evaluations."""

_SECONDS = {"s": 1, "m": 60, "h": 3600}


_RANGE = re.compile(r"(?<=\[)\d+[smh](?=\])|(?<=offset )\d+[smh]")
_AGE = re.compile(r"(time\(\) - \(.+\) > )(\d+)")


def hurried(rules: str) -> str:
    """Return rules with every `for:`, range and offset of an expression divided by `HURRY`.

    The minute of SolsticePollStale becomes `POLL_STALE_S`. Names, metrics, comparisons and all other thresholds are
    those of the shipped file, also thresholds in seconds.
    """
    groups = yaml.safe_load(rules)
    for group in groups["groups"]:
        for rule in group["rules"]:
            least_s = REBALANCES_RANGE_S if rule.get("alert") == "SolsticeRebalances" else SHORTEST_RANGE_S
            rule["expr"] = _with_short_ranges(rule["expr"], least_s)
            rule["expr"] = _AGE.sub(lambda m: f"{m[1]}{POLL_STALE_S}", rule["expr"])
            if "for" in rule:
                rule["for"] = _short(rule["for"], 0.0)
    return yaml.safe_dump(groups)


def _with_short_ranges(expression: str, least_s: float) -> str:
    return _RANGE.sub(lambda m: _short(m[0], least_s), expression)


def _short(duration: str, least_s: float) -> str:
    seconds = int(duration[:-1]) * _SECONDS[duration[-1]] / HURRY
    return f"{int(max(seconds, least_s) * 1000)}ms"


@dataclass(frozen=True)
class Prometheus:
    """A running server and the port of the worker that it scrapes."""

    url: str
    worker_port: int

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = self._get("alerts", {})["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def series(self, query: str) -> list[float]:
        """Return the finite values of the series of `query` at this moment."""
        found = self._get("query", {"query": query})["result"]
        return [value for value in (float(one["value"][1]) for one in found) if math.isfinite(value)]

    def _get(self, what: str, parameters: dict[str, str]) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            data: dict[str, Any] = json.loads(answer.read())["data"]
            return data


@contextmanager
def running(folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus with the shipped rules, hurried, and one scraped worker under the shipped job name."""
    port, worker_port = free_port(), free_port()
    (folder / "rules.yml").write_text(hurried(RULES.read_text()))
    shipped = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    config = {
        "global": {"scrape_interval": f"{int(EVERY_S * 1000)}ms", "evaluation_interval": f"{int(EVERY_S * 1000)}ms"},
        "rule_files": shipped["rule_files"],
        "scrape_configs": [
            {
                "job_name": shipped["scrape_configs"][0]["job_name"],
                "scrape_timeout": f"{int(EVERY_S * 1000)}ms",
                "static_configs": [{"targets": [f"127.0.0.1:{worker_port}"]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for_port(port, process)
        yield Prometheus(f"http://127.0.0.1:{port}", worker_port)
    finally:
        process.terminate()
        process.wait(20)
