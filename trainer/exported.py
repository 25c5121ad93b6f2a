"""Exported generators as the start of a new run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from engine.errors import SetupError
from engine.model.card import Architecture, read_card
from engine.model.weights import Generator, load_generator
from trainer.config import require_trainable
from trainer.networks import Networks

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Endings of the names of stored statistics."""


def architecture_of(models: Sequence[Path]) -> Architecture:
    """Return the architecture that the generator files `models` share; raises `SetupError` if they differ."""
    first, *others = (read_card(model).architecture for model in models)
    if any(other != first for other in others):
        raise SetupError("--start-from: the two generators have different architectures; give a pair or one of them.")
    require_trainable(first)
    return first


def load_exported(networks: Networks, models: Sequence[Path]) -> None:
    """Load the weights of generator files into `networks`: A to B first, B to A second; either may be missing.

    Statistics that the networks store and the files do not are left as they are.
    """
    for generator, model in zip((networks.a_to_b, networks.b_to_a), models, strict=False):
        _load(generator, load_generator(model))


def describe_exported(models: Sequence[Path]) -> list[dict[str, Any]]:
    """Return name, hash and training record of generator files, for the card of what they become."""
    generators = [load_generator(model) for model in models]
    return [
        {"name": generator.card.name, "sha256": generator.sha256, "training": generator.card.training}
        for generator in generators
    ]


def _load(network: nn.Module, generator: Generator) -> None:
    tensors, expected = generator.module.state_dict(), network.state_dict()
    missing = {name for name in expected if name not in tensors and not name.endswith(STATISTICS)}
    if missing or any(name not in expected or value.shape != expected[name].shape for name, value in tensors.items()):
        raise SetupError(f"--start-from: {generator.card.name} does not fit the architecture of this run.")
    network.load_state_dict(tensors, strict=False)
