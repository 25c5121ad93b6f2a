"""One optimisation step of CycleGAN."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer.average import Average
from trainer.compiler import set_compiler_flags
from trainer.config import LossConfig, MachineConfig, ScheduleConfig
from trainer.distributed import Team
from trainer.gradients import GradientError, worst_error
from trainer.history import History
from trainer.losses import adversarial_loss, cycle_loss, discriminator_loss, identity_loss
from trainer.networks import Networks

Losses = dict[str, Tensor]
"""Named losses of one step, each a scalar on the training device."""


@dataclass(frozen=True)
class Translations:
    """Outputs of both generators for one batch, each [N, 3, H, W] in [-1, 1]."""

    made_b: Tensor
    made_a: Tensor
    returned_a: Tensor
    returned_b: Tensor
    kept_a: Tensor | None
    kept_b: Tensor | None


class Step:
    """The four networks with their optimisers and histories; a call trains all of them on one batch."""

    def __init__(
        self,
        networks: Networks,
        losses: LossConfig,
        schedule: ScheduleConfig,
        machine: MachineConfig,
        device: torch.device,
        team: Team | None = None,
    ) -> None:
        self.team = team or Team()
        self.networks = networks
        self.losses = losses
        self.device = device
        self.bf16 = machine.precision == "bf16"
        self.compiled = machine.compile
        self.memory_format = torch.channels_last
        for _, network in networks.named():
            network.to(device)
        if self.compiled:
            set_compiler_flags()
            for _, network in networks.named():
                network.compile(dynamic=False)
        self.average = Average(networks, schedule.average) if schedule.average else None
        self.optimise_generators = _adam(networks.generators(), schedule)
        self.optimise_discriminators = _adam(networks.discriminators(), schedule)
        seed = 2 * (schedule.seed + 1_000_003 * self.team.process)  # a different history in each process
        self.history_a = History(losses.history, torch.Generator().manual_seed(seed))
        self.history_b = History(losses.history, torch.Generator().manual_seed(seed + 1))

    def __call__(self, a: Tensor, b: Tensor, rate: float) -> Losses:
        """Train on one batch of each domain, [N, 3, H, W] in [-1, 1], at learning rate `rate`; returns the losses."""
        a, b = (images.contiguous(memory_format=self.memory_format) for images in (a, b))
        for optimiser in (self.optimise_generators, self.optimise_discriminators):
            optimiser.param_groups[0]["lr"] = rate
        made, generator_losses = self._improve_generators(a, b)
        if self.average is not None:
            self.average.update()
        return generator_losses | self._improve_discriminators(a, b, made)

    def exported(self) -> tuple[nn.Module, nn.Module]:
        """Return the A to B and B to A generators to export: the averaged ones where an average is kept."""
        if self.average is not None:
            return self.average.generators()
        return self.networks.a_to_b, self.networks.b_to_a

    def history_state(self) -> dict[str, Any]:
        """Return the state of both histories."""
        return {"a": self.history_a.state_dict(), "b": self.history_b.state_dict()}

    def load_history_state(self, state: dict[str, Any]) -> None:
        """Restore what `history_state` returned."""
        self.history_a.load_state_dict(state["a"], self.device)
        self.history_b.load_state_dict(state["b"], self.device)

    def gradient_error(self, a: Tensor, b: Tensor) -> GradientError:
        """Return the worst error of this step's gradients on one batch of each domain; changes nothing."""
        a, b = (images.contiguous(memory_format=self.memory_format) for images in (a, b))
        return worst_error(self.networks, a, b, bf16=self.bf16, identity=bool(self.losses.identity))

    def use_eager(self) -> None:
        """Run the networks uncompiled from now on."""
        self.compiled = False
        for _, network in self.networks.named():
            network._compiled_call_impl = None

    def use_contiguous(self) -> None:
        """Keep weights and images in NCHW layout from now on."""
        self.memory_format = torch.contiguous_format
        for _, network in self.networks.named():
            network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def _improve_generators(self, a: Tensor, b: Tensor) -> tuple[Translations, Losses]:
        # Here the discriminators only pass gradients on.
        _require_grad(self.networks.discriminators(), required=False)
        with self._precision():
            made = self._translate(a, b)
            losses = self._generator_losses(a, b, made)
        self.optimise_generators.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.team.average_gradients(self.networks.generators())
        self.optimise_generators.step()
        return made, {name: loss.detach() for name, loss in losses.items()}

    def _improve_discriminators(self, a: Tensor, b: Tensor, made: Translations) -> Losses:
        _require_grad(self.networks.discriminators(), required=True)
        made_a = self.history_a.exchange(made.made_a)
        made_b = self.history_b.exchange(made.made_b)
        with self._precision():
            losses = {
                "real_a": _discriminator_loss(self.networks.real_a, a, made_a),
                "real_b": _discriminator_loss(self.networks.real_b, b, made_b),
            }
        self.optimise_discriminators.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        self.team.average_gradients(self.networks.discriminators())
        self.optimise_discriminators.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def _translate(self, a: Tensor, b: Tensor) -> Translations:
        networks = self.networks
        if not self.losses.identity:
            made_b, made_a = networks.a_to_b(a), networks.b_to_a(b)
            return Translations(made_b, made_a, networks.b_to_a(made_b), networks.a_to_b(made_a), None, None)
        # InstanceNorm does not mix the images of a batch, so both inputs of a generator can share one call.
        made_b, kept_b = networks.a_to_b(torch.cat([a, b])).chunk(2)
        made_a, kept_a = networks.b_to_a(torch.cat([b, a])).chunk(2)
        return Translations(made_b, made_a, networks.b_to_a(made_b), networks.a_to_b(made_a), kept_a, kept_b)

    def _generator_losses(self, a: Tensor, b: Tensor, made: Translations) -> Losses:
        weights = self.losses
        losses = {
            "fool_a": adversarial_loss(self.networks.real_a(made.made_a), real=True),
            "fool_b": adversarial_loss(self.networks.real_b(made.made_b), real=True),
            "cycle_a": weights.cycle * cycle_loss(a, made.returned_a),
            "cycle_b": weights.cycle * cycle_loss(b, made.returned_b),
        }
        if made.kept_a is not None and made.kept_b is not None:
            losses["identity_a"] = weights.cycle * weights.identity * identity_loss(a, made.kept_a)
            losses["identity_b"] = weights.cycle * weights.identity * identity_loss(b, made.kept_b)
        return losses

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)


def _discriminator_loss(discriminator: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    real_scores, made_scores = discriminator(torch.cat([real, made.to(real.dtype)])).chunk(2)
    return discriminator_loss(real_scores, made_scores)


def _adam(parameters: list[nn.Parameter], schedule: ScheduleConfig) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=schedule.rate, betas=schedule.betas, fused=True)


def _require_grad(parameters: list[nn.Parameter], *, required: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(required)
