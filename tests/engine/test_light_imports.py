"""What every command loads must not load torch: the start of `solstice --help` depends on it."""

from __future__ import annotations

import subprocess
import sys

from tests import ROOT

LIGHT = (
    "engine.config",
    "engine.options",
    "engine.errors",
    "engine.model.card",
    "engine.model.card",
    "engine.observe.health",
    "engine.observe.logs",
    "engine.observe.metrics",
    "engine.observe.profiling",
    "engine.observe.prometheus",
    "engine.observe.tracing",
    "engine.runtime.cache",
    "engine.system.retry",
    "engine.system.versions",
)


def test_configuration_cards_and_observers_do_not_load_torch() -> None:
    script = f"import sys, {', '.join(LIGHT)}; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(shown.stdout.split())
    assert loaded >= set(LIGHT)
    assert not loaded & {"torch", "numpy", "prometheus_client", "opentelemetry"}


def test_reading_a_model_card_does_not_load_torch() -> None:
    script = (
        "import sys; from engine.model.card import find_model, list_models, read_card; "
        "[read_card(find_model(name)) for name in list_models()]; print(len(list_models()), 'torch' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    count, loaded = shown.stdout.split()
    assert int(count) >= 2
    assert loaded == "False"
