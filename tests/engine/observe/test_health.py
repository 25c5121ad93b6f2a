from __future__ import annotations

import json
import socket
import struct
import urllib.error
import urllib.request

import pytest

from engine.observe.health import Health
from engine.observe.prometheus import serve_metrics


def test_a_heartbeat_is_missed_after_its_limit() -> None:
    now = [0.0]
    health = Health(lambda: now[0])
    health.expect("poll", 5.0)
    now[0] = 5.0
    assert health.silent() == []
    now[0] = 5.1
    assert health.silent() == ["poll"]
    health.beat("poll")
    assert health.silent() == []


def test_readiness_requires_every_condition() -> None:
    health = Health()
    health.require("model", False)
    assert health.missing() == ["model"]
    health.require("model", True)
    assert health.missing() == []


def test_reasons_name_the_activity_and_its_duration() -> None:
    now = [0.0]
    health = Health(lambda: now[0])
    health.require("model", False, "compiling winter")
    now[0] = 35.4
    health.require("model", False, "compiling winter")
    assert health.reasons() == {"model": "compiling winter, 35 s"}
    health.require("model", False, "compiling summer")
    assert health.reasons() == {"model": "compiling summer, 0 s"}
    health.require("model", True, "compiling summer")
    assert health.reasons() == {}


def test_readyz_returns_503_with_the_reasons() -> None:
    health = Health()
    health.require("model", False, "compiling winter")
    _, server = serve_metrics(0, health=health)
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/readyz", timeout=10)
        answer = json.loads(refused.value.read())
        refused.value.close()
        assert (refused.value.code, answer["waiting_for"]) == (503, ["model"])
        assert answer["reasons"]["model"].startswith("compiling winter, ")
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz", timeout=10) as alive:
            assert json.loads(alive.read()) == {"ok": True, "waiting_for": []}
    finally:
        server.close()


def test_a_scraper_that_disconnects_causes_no_output_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    metrics, server = serve_metrics(0)
    for i in range(3000):  # an answer larger than the buffers of a connection
        metrics.gauge("lag_jobs", 1.0, str(i))
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, not an orderly end
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        assert b'partition="2999"' in answer.read()
    server.close()
    assert capfd.readouterr().err == ""
