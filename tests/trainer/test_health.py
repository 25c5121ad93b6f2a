from __future__ import annotations

import pytest
import torch

from engine.errors import StopRun
from trainer.config import RunConfig
from trainer.health import LEAST_READINGS, Health, check_weights
from trainer.networks import build_networks

HEALTHY = {"fool_a": 0.6, "real_a": 0.2, "real_b": 0.15}


def test_healthy_losses_pass() -> None:
    health = Health()
    for _ in range(3 * LEAST_READINGS):
        health.check(HEALTHY)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(loss: float) -> None:
    with pytest.raises(StopRun, match="fool_a"):
        Health().check(HEALTHY | {"fool_a": loss})


def test_scores_beyond_all_bounds_stop_the_run_and_a_heavy_cycle_loss_does_not() -> None:
    Health().check(HEALTHY | {"cycle_a": 300.0, "fool_a": 9.0})
    with pytest.raises(StopRun, match=r"real_a rose to 1\.5e\+06"):
        Health().check(HEALTHY | {"real_a": 1_499_720.88})


def test_a_discriminator_that_never_errs_stops_the_run_but_one_good_moment_does_not() -> None:
    health = Health()
    health.check(HEALTHY | {"real_b": 0.0})
    for _ in range(2 * LEAST_READINGS):
        health.check(HEALTHY)

    def go_on() -> None:
        for _ in range(2000):
            health.check(HEALTHY | {"real_b": 1e-5})

    with pytest.raises(StopRun, match="real_b"):
        go_on()


def test_ruined_weights_are_found_by_name(config: RunConfig) -> None:
    networks = build_networks(config.networks, seed=1)
    check_weights(networks)
    with torch.no_grad():
        next(iter(networks.real_b.parameters()))[0] = float("nan")
    with pytest.raises(StopRun, match="real_b"):
        check_weights(networks)
