from __future__ import annotations

from engine.observe.health import Health


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


def test_ready_means_that_every_condition_holds() -> None:
    health = Health()
    health.require("model", False)
    assert health.missing() == ["model"]
    health.require("model", True)
    assert health.missing() == []
