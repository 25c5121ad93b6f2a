"""Check of the gradients before the first step, with slower but safe settings to fall back to."""

from __future__ import annotations

import logging
from collections.abc import Callable

from torch import Tensor

from engine.errors import StopRun
from trainer.gradients import TOLERANCES
from trainer.step import Step

logger = logging.getLogger(__name__)


def ensure_right_gradients(step: Step, a: Tensor, b: Tensor) -> None:
    """Compare the gradients of `step` on one batch of each domain with the reference; fall back until they are right.

    Wrong compiled gradients turn compilation off; wrong channels-last gradients turn to NCHW. Each fallback logs one
    sentence. Raises `StopRun` when gradients are still wrong then.
    """
    limit = TOLERANCES["bf16" if step.bf16 else "fp32"]
    error = step.gradient_error(a, b)
    for name, fall_back in _fallbacks(step):
        if error.relative <= limit:
            return
        logger.warning("Gradients are wrong on this machine (%s): training without %s.", error, name)
        fall_back()
        error = step.gradient_error(a, b)
    if error.relative > limit:
        precision = "; try --precision fp32" if step.bf16 else ""
        raise StopRun(f"Gradients are wrong on this machine with this build of PyTorch ({error}){precision}.")


def _fallbacks(step: Step) -> list[tuple[str, Callable[[], None]]]:
    """Return the settings that `step` can give up, by name, in the order to try."""
    compiled = [("torch.compile", step.use_eager)] if step.compiled else []
    return [*compiled, ("channels-last memory", step.use_contiguous)]
