from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.errors import StopRun
from trainer import loop
from trainer.config import RunConfig
from trainer.fallback import ensure_right_gradients
from trainer.networks import build_networks
from trainer.step import Step

A, B = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def step_of(config: RunConfig, *, compiled: bool = False) -> Step:
    step = Step(build_networks(config.networks, 1), config.losses, config.schedule, config.machine, torch.device("cpu"))
    step.compiled = compiled
    return step


def break_when(step: Step, *, compiled: bool | None = None, channels_last: bool | None = None) -> None:
    """Double the gradient of a discriminator's first weight while the step runs in the given way."""
    weight = next(iter(step.networks.real_b.parameters()))

    def wrong(gradient: torch.Tensor) -> torch.Tensor:
        is_broken = (compiled is None or step.compiled == compiled) and (
            channels_last is None or (step.memory_format == torch.channels_last) == channels_last
        )
        return gradient * 2 if is_broken else gradient

    weight.register_hook(wrong)  # type: ignore[no-untyped-call]


def test_right_gradients_change_nothing(config: RunConfig, caplog: pytest.LogCaptureFixture) -> None:
    step = step_of(config)
    ensure_right_gradients(step, A, B)
    assert not caplog.messages
    assert step.memory_format == torch.channels_last


def test_wrong_compiled_gradients_turn_compilation_off(config: RunConfig, caplog: pytest.LogCaptureFixture) -> None:
    step = step_of(config, compiled=True)
    break_when(step, compiled=True)
    ensure_right_gradients(step, A, B)
    assert not step.compiled
    assert step.memory_format == torch.channels_last
    (message,) = caplog.messages
    assert message.endswith("in model.0.weight of real_b): training without torch.compile.")


def test_wrong_channels_last_gradients_turn_to_contiguous_memory(
    config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    step = step_of(config)
    break_when(step, channels_last=True)
    ensure_right_gradients(step, A, B)
    assert step.memory_format == torch.contiguous_format
    assert all(weight.is_contiguous() for weight in step.networks.generators())
    assert len(caplog.messages) == 1
    step(A, B, rate=1e-4)


def test_gradients_that_stay_wrong_are_refused_before_the_first_step(config: RunConfig, tmp_path: Path) -> None:
    def broken_networks(*_: object) -> object:
        networks = build_networks(config.networks, seed=1)
        weight = next(iter(networks.a_to_b.parameters()))
        weight.register_hook(lambda gradient: gradient * 2)  # type: ignore[no-untyped-call]
        return networks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "first_networks", broken_networks)
        with pytest.raises(StopRun, match="Gradients are wrong on this machine"):
            loop.fit(replace(config, schedule=replace(config.schedule, epochs=1)), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.filterwarnings("ignore")  # deprecations inside torch's compiler
def test_use_eager_removes_compilation(config: RunConfig) -> None:
    step = step_of(replace(config, machine=replace(config.machine, compile=True)))
    assert all(network._compiled_call_impl is not None for _, network in step.networks.named())
    step.use_eager()
    assert all(
        isinstance(network, nn.Module) and network._compiled_call_impl is None for _, network in step.networks.named()
    )
