from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from trainer.config import LossConfig, RunConfig
from trainer.networks import build_networks
from trainer.step import Step


def make_step(config: RunConfig) -> Step:
    networks = build_networks(config.networks, seed=1)
    return Step(networks, config.losses, config.schedule, config.machine, torch.device("cpu"))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 2, 3, 32, 32, generator=random) * 2 - 1
    return a, b


def test_a_step_changes_all_four_networks_and_reports_every_loss(
    config: RunConfig, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    step = make_step(config)
    before = {name: next(iter(net.parameters())).clone() for name, net in step.networks.named()}
    losses = step(*batch, rate=1e-3)
    names = ["fool_a", "fool_b", "cycle_a", "cycle_b", "identity_a", "identity_b", "real_a", "real_b"]
    assert list(losses) == names
    for name, network in step.networks.named():
        assert not torch.equal(before[name], next(iter(network.parameters())))


def test_a_rate_of_zero_changes_nothing(config: RunConfig, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    step = make_step(config)
    before = [parameter.clone() for parameter in step.networks.generators()]
    step(*batch, rate=0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, step.networks.generators(), strict=True))


def test_generators_in_one_call_give_the_losses_of_separate_calls(
    config: RunConfig, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    together = make_step(config)(*batch, rate=0.0)
    alone = make_step(replace(config, losses=LossConfig(identity=0)))(*batch, rate=0.0)
    assert "identity_a" not in alone
    for name in ("fool_a", "cycle_a", "real_b"):
        assert together[name].item() == pytest.approx(alone[name].item(), rel=1e-4)


def test_learning_on_one_batch_lowers_the_cycle_loss(
    config: RunConfig, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    step = make_step(config)
    first = step(*batch, rate=2e-3)["cycle_a"]
    for _ in range(20):
        last = step(*batch, rate=2e-3)["cycle_a"]
    assert last < first
