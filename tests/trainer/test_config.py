from __future__ import annotations

import math
from pathlib import Path

import pytest

from engine.errors import SetupError
from trainer.config import DataConfig, LossConfig, NetworkConfig, RunConfig, ScheduleConfig


def test_defaults_are_as_published() -> None:
    config = RunConfig(data=DataConfig(train_a=Path("a"), train_b=Path("b")))
    assert (config.data.load, config.data.crop, config.data.flip) == (286, 256, True)
    assert (config.networks.architecture.ngf, config.networks.architecture.blocks, config.networks.ndf) == (64, 9, 64)
    assert (config.losses.cycle, config.losses.identity, config.losses.history) == (10, 0.5, 50)
    schedule = config.schedule
    assert (schedule.epochs, schedule.batch, schedule.rate, schedule.betas) == (200, 1, 2e-4, (0.5, 0.999))


def test_a_configuration_survives_json(config: RunConfig) -> None:
    assert RunConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(("epoch", "share"), [(0, 1), (99.9, 1), (150, 0.5), (199, 0.01), (200, 0)])
def test_the_rate_is_constant_and_then_falls_to_zero(epoch: float, share: float) -> None:
    assert ScheduleConfig().rate_at(epoch, 1) == pytest.approx(2e-4 * share)


def test_the_decay_can_be_shortened_and_larger_steps_have_a_higher_rate() -> None:
    schedule = ScheduleConfig(epochs=10, decay_epochs=2)
    assert schedule.rate_at(8, 1) == pytest.approx(2e-4)
    assert schedule.rate_at(9, 1) == pytest.approx(1e-4)
    assert schedule.rate_at(0, 16) == pytest.approx(2e-4 * math.sqrt(16))
    assert ScheduleConfig(epochs=10, decay_epochs=0).rate_at(9.99, 1) == pytest.approx(2e-4)


@pytest.mark.parametrize("changes", [{"crop": 30}, {"crop": 16}, {"load": 100, "crop": 128}])
def test_impossible_sizes_are_errors(changes: dict[str, int]) -> None:
    with pytest.raises(SetupError, match="--"):
        DataConfig(train_a=Path("a"), train_b=Path("b"), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"batch": 0},
        {"rate": -1},
        {"rate": math.nan},
        {"rate": math.inf},
        {"seed": -1},
        {"epochs": 2, "decay_epochs": 3},
    ],
)
def test_impossible_schedules_are_errors(changes: dict[str, float]) -> None:
    with pytest.raises(SetupError):
        ScheduleConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"cycle": -1}, {"cycle": math.nan}, {"identity": -0.5}, {"identity": math.inf}])
def test_impossible_weights_of_losses_are_errors(changes: dict[str, float]) -> None:
    with pytest.raises(SetupError, match="must be zero or a positive number"):
        LossConfig(**changes)  # type: ignore[arg-type]


def test_discriminators_without_channels_are_an_error() -> None:
    with pytest.raises(SetupError, match="--ndf must be at least 1"):
        NetworkConfig(ndf=0)
