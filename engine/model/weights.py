"""Generators on disk: one safetensors file holds the tensors and, in its metadata, the model card."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.errors import SetupError
from engine.model.card import CARD_KEY, Card, find_model, read_card
from engine.model.network import ResnetGenerator
from engine.system.files import write_atomically


@dataclass(frozen=True)
class Generator:
    """A loaded generator: the module in float32 and eval mode, its card, and the hash of its file."""

    module: ResnetGenerator
    card: Card
    sha256: str
    """Hash of the file's bytes; identifies architecture and weights together."""


def save_generator(path: Path, module: ResnetGenerator, card: Card, dtype: torch.dtype = torch.float16) -> None:
    """Write `module` to `path` atomically; floating-point tensors are stored as `dtype`."""
    card = replace(card, architecture=module.arch)
    tensors = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else value.dtype).contiguous()
        for key, value in module.state_dict().items()
    }
    write_atomically(path, save(tensors, metadata={CARD_KEY: card.to_json()}))


def load_generator(name: str | Path) -> Generator:
    """Load a generator by name or file; raises `SetupError` if it is missing or damaged."""
    return load_file(find_model(str(name)))


def load_file(path: Path) -> Generator:
    """Load a generator for inference.

    Raises `SetupError` if the file is missing, is not a model file, or its tensors do not fit its card.
    """
    card = read_card(path)
    module = ResnetGenerator(card.architecture)
    with safe_open(path, framework="pt") as file:
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    mismatch = first_mismatch(module, tensors)
    if mismatch is not None:
        raise SetupError(f"{path}: {mismatch}.")
    module.load_state_dict(tensors)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Generator(module.float().eval().requires_grad_(False), card, digest)


def first_mismatch(module: nn.Module, tensors: dict[str, Tensor]) -> str | None:
    """Describe the first key that is missing, unknown or of the wrong shape; None if all tensors fit `module`."""
    expected = module.state_dict()
    for key, value in expected.items():
        if key not in tensors:
            return f"key {key} is missing"
        if tensors[key].shape != value.shape:
            return f"key {key} has shape {list(tensors[key].shape)}, expected {list(value.shape)}"
    unknown = next((key for key in tensors if key not in expected), None)
    return None if unknown is None else f"key {unknown} does not belong to a ResNet generator"
