"""Alerts fire when they should, and only then."""

from __future__ import annotations

import subprocess

import pytest

from tests import ROOT


@pytest.mark.needs_prometheus
def test_alerts_fire_as_their_tests_say() -> None:
    """See deploy/rules_test.yml for the states of workers and the alerts of each."""
    shown = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"],
        cwd=ROOT / "deploy",
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
