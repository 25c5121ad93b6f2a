"""A moving average of both generators, kept beside those that learn."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from trainer.networks import Networks


class Average:
    """Both generators with their weights averaged over the steps: after each, kept = decay kept + (1 - decay) new.

    Adversarial training circles around its solution instead of reaching it, and the centre of the circle is better
    than any point on it (Yazici et al., "The Unusual Effectiveness of Averaging in GAN Training", ICLR 2019,
    equation 2). What is exported and shown are these generators; the ones that learn never see them.
    """

    def __init__(self, networks: Networks, decay: float) -> None:
        """Begin with the present weights; a `decay` of 0.999 remembers about a thousand steps."""
        self._learning = (networks.a_to_b, networks.b_to_a)
        self._kept = tuple(copy.deepcopy(generator).requires_grad_(False) for generator in self._learning)
        self._blend = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Take in the weights that a step has left."""
        for kept, learning in zip(self._kept, self._learning, strict=True):
            self._blend(list(kept.parameters()), list(learning.parameters()), torch.tensor(0))

    def generators(self) -> tuple[nn.Module, nn.Module]:
        """Give the averaged A to B and B to A."""
        return self._kept[0], self._kept[1]

    def named(self) -> Iterator[tuple[str, nn.Module]]:
        """Yield each averaged generator under the name that it has in `Networks`."""
        yield from zip(("a_to_b", "b_to_a"), self._kept, strict=True)

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights by name of the generator."""
        return {name: generator.state_dict() for name, generator in self.named()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave; where that is empty, from the present weights."""
        for (name, kept), learning in zip(self.named(), self._learning, strict=True):
            kept.load_state_dict(state.get(name) or learning.state_dict())
