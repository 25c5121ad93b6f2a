"""Detection of a training run that has gone wrong, from its losses and weights alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from engine.errors import StopRun
from trainer.checkpoints import NAME
from trainer.networks import Networks

COLLAPSE_BELOW = 1e-3
"""Mean loss of a discriminator that is practically never wrong; healthy ones stay between 0.05 and 0.25."""
DIVERGED_ABOVE = 100.0
"""Least-squares loss of scores that are 10 away from 0 and 1; seen with --discriminator-norm none at twice the rate."""
MEMORY = 0.98
"""Weight of the past in the running mean: about the last 50 readings."""
LEAST_READINGS = 50


def remedy(run: Path) -> str:
    """Return what to do about a run in the folder `run` that failed; names the checkpoint only if there is one."""
    if (run / NAME).exists():
        return f"continue from the last checkpoint by `solstice-train resume {run}` with a lower --rate."
    return "there is no checkpoint yet, so start again with a lower --rate or with --precision fp32."


def check_weights(networks: Networks, run: Path) -> None:
    """Raise `StopRun` if a weight is not finite; the losses show this only a step later."""
    for name, network in networks.named():
        if not all(bool(torch.isfinite(weight).all()) for weight in network.parameters()):
            raise StopRun(f"Weights of {name} are not finite; {remedy(run)}")


class LossMonitor:
    """Watches the losses of the run in the folder `run`; raises `StopRun` before a ruined state is saved."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._readings = 0
        self._means: dict[str, float] = {}

    def check(self, losses: Mapping[str, float]) -> None:
        """Take one reading of every loss by name; the discriminators' are `real_a` and `real_b`.

        Raises `StopRun` on a loss that is not finite, on diverging scores, and on a discriminator that is never wrong:
        its gradients no longer guide the generators.
        """
        self._readings += 1
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise StopRun(f"Loss {name} became {loss}; {remedy(self._run)}")
            if loss > DIVERGED_ABOVE and not name.startswith(("cycle", "identity")):
                raise StopRun(f"Loss {name} rose to {loss:.3g}: the discriminators diverge; {remedy(self._run)}")
        for name in ("real_a", "real_b"):
            mean = MEMORY * self._means.get(name, losses[name]) + (1 - MEMORY) * losses[name]
            self._means[name] = mean
            if self._readings >= LEAST_READINGS and mean < COLLAPSE_BELOW:
                raise StopRun(
                    f"Discriminator {name} recognises every translation (mean loss {mean:.1e}), so the generators "
                    "learn nothing more; use more photos, a larger --crop or a lower --rate."
                )
