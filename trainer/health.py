"""Notices a training run that has gone wrong, from its losses alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from engine.errors import StopRun
from trainer.networks import Networks

COLLAPSE_BELOW = 1e-3
"""Mean loss of a discriminator that is practically never wrong; healthy ones stay between 0.05 and 0.25."""
DIVERGED_ABOVE = 100.0
"""Least-squares loss of scores that are 10 away from 0 and 1; seen with --discriminator-norm none at twice the rate."""
MEMORY = 0.98
"""Weight of the past in the running mean: about the last 50 readings."""
LEAST_READINGS = 50
REMEDY = "the last checkpoint is from before that: resume it with a lower --rate or with --precision fp32."


def check_weights(networks: Networks) -> None:
    """Raise `StopRun` when a weight is not a number, which the losses show only a step later."""
    for name, network in networks.named():
        if not all(bool(torch.isfinite(weight).all()) for weight in network.parameters()):
            raise StopRun(f"Weights of {name} are no numbers any more; {REMEDY}")


class Health:
    """Watches the losses of a run and raises `StopRun` before a ruined state is saved."""

    def __init__(self) -> None:
        self._readings = 0
        self._means: dict[str, float] = {}

    def check(self, losses: Mapping[str, float]) -> None:
        """Take one reading of every loss by name; discriminators are `real_a` and `real_b`.

        Raises `StopRun` on a loss that is not a number, on scores beyond all bounds, and on a discriminator that
        never errs: from then on the generators get no gradient that says where to go.
        """
        self._readings += 1
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise StopRun(f"Loss {name} became {loss}; {REMEDY}")
            if loss > DIVERGED_ABOVE and not name.startswith(("cycle", "identity")):
                raise StopRun(f"Loss {name} rose to {loss:.3g}: the discriminators' scores diverge; {REMEDY}")
        for name in ("real_a", "real_b"):
            mean = MEMORY * self._means.get(name, losses[name]) + (1 - MEMORY) * losses[name]
            self._means[name] = mean
            if self._readings >= LEAST_READINGS and mean < COLLAPSE_BELOW:
                raise StopRun(
                    f"Discriminator {name} tells every photo from every translation (mean loss {mean:.1e}), "
                    "so the generators learn nothing more; use more photos, a larger --crop or a lower --rate."
                )
