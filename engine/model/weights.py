"""Generators on disk: one safetensors file holds the tensors and, in its metadata, the model card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.errors import SetupError
from engine.model.card import CARD_KEY, Card, find_model, read_card
from engine.model.network import GeneratorNetwork, build_generator
from engine.system.files import write_atomically

_FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of safetensors that a weight may have."""


@dataclass(frozen=True)
class Generator:
    """A loaded generator: the module in float32 and eval mode, its card, and the hash of its file."""

    module: GeneratorNetwork
    card: Card
    sha256: str
    """Hash of the file's bytes; identifies architecture and weights together."""


def save_generator(path: Path, module: GeneratorNetwork, card: Card, dtype: torch.dtype = torch.float16) -> None:
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
    with torch.device("meta"):  # shapes without memory, until the file's are known to be the same
        module = build_generator(card.architecture)
    try:
        module.load_state_dict(_read_tensors(path, module), assign=True)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (SafetensorError, OSError) as error:  # a file that is replaced or cut while it is read
        raise SetupError(f"{path} is not a readable .safetensors file ({error}).") from error
    return Generator(module.float().eval().requires_grad_(False), card, digest)


def _read_tensors(path: Path, module: nn.Module) -> dict[str, Tensor]:
    """Read the tensors of `module`, none of them before all names, shapes and types have been compared."""
    with safe_open(path, framework="pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        mismatch = first_mismatch(module, {key: part.get_shape() for key, part in slices.items()})
        if mismatch is not None:
            raise SetupError(f"{path}: {mismatch}.")
        for key, value in module.state_dict().items():
            if (slices[key].get_dtype() in _FLOATS) is not value.is_floating_point():
                raise SetupError(f"{path}: key {key} has type {slices[key].get_dtype()}, which does not fit.")
        tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in slices}
    broken = next((key for key, value in tensors.items() if not torch.isfinite(value).all()), None)
    if broken is not None:
        raise SetupError(f"{path}: key {broken} has values that are infinite or no number.")
    return tensors


def first_mismatch(module: nn.Module, shapes: Mapping[str, Sequence[int]]) -> str | None:
    """Describe the first key that is missing, unknown or of the wrong shape; None if all shapes fit `module`."""
    expected = module.state_dict()
    for key, value in expected.items():
        if key not in shapes:
            return f"key {key} is missing"
        if list(shapes[key]) != list(value.shape):
            return f"key {key} has shape {list(shapes[key])}, expected {list(value.shape)}"
    unknown = next((key for key in shapes if key not in expected), None)
    return None if unknown is None else f"key {unknown} does not belong to this generator"
