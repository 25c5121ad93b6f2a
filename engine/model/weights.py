"""A generator on disk: one safetensors file that carries its own JSON card."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.errors import SetupError
from engine.model.card import CARD_KEY, Card, find_model, list_models, read_card
from engine.model.network import ResnetGenerator
from engine.system.files import write_atomically

__all__ = [
    "Card",
    "Generator",
    "find_model",
    "first_misfit",
    "list_models",
    "load_file",
    "load_generator",
    "read_card",
    "save_generator",
]


@dataclass(frozen=True)
class Generator:
    """A loaded generator: the module in float32 and eval mode, its card, and what identifies its weights."""

    module: ResnetGenerator
    card: Card
    sha256: str
    """Hash of the file's bytes: one name for architecture and weights together."""


def save_generator(path: Path, module: ResnetGenerator, card: Card, dtype: torch.dtype = torch.float16) -> None:
    """Write `module` to `path`; floating tensors are stored as `dtype`.

    The file appears under its name only when whole: temporary name, flush, rename.
    """
    card = replace(card, architecture=module.arch)
    tensors = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous()
        for key, value in module.state_dict().items()
    }
    write_atomically(path, save(tensors, metadata={CARD_KEY: card.to_json()}))


def load_file(path: Path) -> Generator:
    """Load a generator for inference.

    Raises `SetupError` when the file is missing, is not a model file, or its tensors do not fit its card.
    """
    card = read_card(path)
    module = ResnetGenerator(card.architecture)
    with safe_open(path, framework="pt") as file:
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    misfit = first_misfit(module, tensors)
    if misfit is not None:
        raise SetupError(f"{path}: {misfit}.")
    module.load_state_dict(tensors)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Generator(module.float().eval().requires_grad_(False), card, digest)


def first_misfit(module: nn.Module, tensors: dict[str, Tensor]) -> str | None:
    """Say which key is the first that is missing, unknown or of the wrong shape; None when all fit."""
    expected = module.state_dict()
    for key, value in expected.items():
        if key not in tensors:
            return f"key {key} is missing"
        if tensors[key].shape != value.shape:
            return f"key {key} has shape {list(tensors[key].shape)}, expected {list(value.shape)}"
    unknown = next((key for key in tensors if key not in expected), None)
    return None if unknown is None else f"key {unknown} does not belong to a ResNet generator"


def load_generator(name: str | Path) -> Generator:
    """Load a generator by its name or file; raises `SetupError` when it is missing or damaged."""
    return load_file(find_model(str(name)))
