"""The dashboard and the alert rules name metrics that a worker exports, and the dashboard shows every one of them."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from types import ModuleType
from typing import Any

import yaml

from engine.observe.metrics import METRICS
from tests import ROOT

DASHBOARD = ROOT / "deploy/grafana/dashboards/solstice.json"
RULES = ROOT / "deploy/rules.yml"
RUNBOOK = ROOT / "docs/runbook.md"

SERIES = {
    f"solstice_{metric.name}{suffix}"
    for metric in METRICS
    for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
}


def generator() -> ModuleType:
    """Import the script that writes the dashboard."""
    spec = importlib.util.spec_from_file_location("solstice_dashboard", ROOT / "deploy/grafana/dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def named(text: str) -> set[str]:
    return set(re.findall(r"\bsolstice_[a-z_]+", text))


def test_the_dashboard_is_what_its_script_writes() -> None:
    assert json.loads(DASHBOARD.read_text()) == generator().dashboard()


def test_every_query_names_an_exported_metric_and_the_chosen_workers() -> None:
    for query in queries():
        assert named(query) <= SERIES, query
        assert '{job=~"$group", instance=~"$instance"}' in query


def test_every_metric_of_a_worker_is_shown() -> None:
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for query in queries() for name in named(query)}
    missing = {f"solstice_{metric.name}" for metric in METRICS} - shown
    assert missing == set()


def test_every_rule_names_an_exported_metric() -> None:
    recorded = {"solstice:images:rate1m"}
    for rule in alerts():
        assert named(rule["expr"]) - recorded <= SERIES, rule["alert"]


def test_every_alert_has_its_entry_in_the_runbook_and_links_to_it() -> None:
    text = RUNBOOK.read_text()
    for rule in alerts():
        entry = re.search(rf"^## {rule['alert']}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert entry, f"docs/runbook.md has no entry for {rule['alert']}"
        for part in ("**Meaning.**", "**Look at.**", "**Do.**"):
            assert part in entry[1], (rule["alert"], part)
        assert rule["annotations"]["runbook_url"].endswith(f"runbook.md#{rule['alert'].lower()}")


def test_the_runbook_has_no_entry_for_an_alert_that_is_gone() -> None:
    entries = set(re.findall(r"^## (Solstice\w+)$", RUNBOOK.read_text(), re.MULTILINE))
    assert entries == {rule["alert"] for rule in alerts()}
