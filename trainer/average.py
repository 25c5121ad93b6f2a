"""Moving average of the weights of both generators."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from trainer.networks import Networks


class Average:
    """Exponential moving average of both generators: kept = decay * kept + (1 - decay) * new after each step.

    Adversarial training oscillates around its solution; the average is better than any single iterate (Yazici et al.,
    "The Unusual Effectiveness of Averaging in GAN Training", ICLR 2019, equation 2). The averaged generators are
    exported and shown on sheets; they do not take part in training.
    """

    def __init__(self, networks: Networks, decay: float) -> None:
        """Start with the present weights; a `decay` of 0.999 averages over about a thousand steps."""
        self._learning = (networks.a_to_b, networks.b_to_a)
        self._kept = tuple(copy.deepcopy(generator).requires_grad_(False) for generator in self._learning)
        self._blend = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Add the present weights to the average."""
        for kept, learning in zip(self._kept, self._learning, strict=True):
            self._blend(list(kept.parameters()), list(learning.parameters()), torch.tensor(0))

    def generators(self) -> tuple[nn.Module, nn.Module]:
        """Return the averaged A to B and B to A generators."""
        return self._kept[0], self._kept[1]

    def named(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield each averaged generator with its name in `Networks`."""
        yield from zip(("a_to_b", "b_to_a"), self._kept, strict=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights by name of the generator."""
        return {name: generator.state_dict() for name, generator in self.named()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the output of `state_dict`; without an entry for a generator, start with its present weights."""
        for (name, kept), learning in zip(self.named(), self._learning, strict=True):
            kept.load_state_dict(state.get(name) or learning.state_dict())
