from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.errors import StopRun
from trainer.config import RunConfig
from trainer.health import LEAST_READINGS, LossMonitor, check_weights, remedy
from trainer.networks import build_networks

RUN = Path("no-such-run")
HEALTHY = {"fool_a": 0.6, "real_a": 0.2, "real_b": 0.15}


def test_healthy_losses_pass() -> None:
    health = LossMonitor(RUN)
    for _ in range(3 * LEAST_READINGS):
        health.check(HEALTHY)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run(loss: float) -> None:
    with pytest.raises(StopRun, match="fool_a"):
        LossMonitor(RUN).check(HEALTHY | {"fool_a": loss})


def test_diverging_scores_stop_the_run_and_a_large_cycle_loss_does_not() -> None:
    LossMonitor(RUN).check(HEALTHY | {"cycle_a": 300.0, "fool_a": 9.0})
    with pytest.raises(StopRun, match=r"real_a rose to 1\.5e\+06"):
        LossMonitor(RUN).check(HEALTHY | {"real_a": 1_499_720.88})


def test_a_discriminator_that_is_never_wrong_stops_the_run_but_one_such_reading_does_not() -> None:
    health = LossMonitor(RUN)
    health.check(HEALTHY | {"real_b": 0.0})
    for _ in range(2 * LEAST_READINGS):
        health.check(HEALTHY)

    def keep_winning() -> None:
        for _ in range(2000):
            health.check(HEALTHY | {"real_b": 1e-5})

    with pytest.raises(StopRun, match="real_b"):
        keep_winning()


def test_weights_that_are_not_finite_are_found_by_name(config: RunConfig) -> None:
    networks = build_networks(config.networks, seed=1)
    check_weights(networks, RUN)
    with torch.no_grad():
        next(iter(networks.real_b.parameters()))[0] = float("nan")
    with pytest.raises(StopRun, match="real_b"):
        check_weights(networks, RUN)


def test_the_remedy_names_a_checkpoint_only_where_there_is_one(tmp_path: Path) -> None:
    assert "no checkpoint yet" in remedy(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    assert f"solstice-train resume {tmp_path}" in remedy(tmp_path)
