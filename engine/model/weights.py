"""A generator on disk: one safetensors file that carries its own JSON card."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.errors import SetupError
from engine.model.network import Architecture, ResnetGenerator
from engine.system.files import write_atomically

CARD_KEY = "solstice.card"
CARD_FORMAT = 1
SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a user must know about a generator, stored beside its tensors."""

    name: str
    """Short name, such as `summer2winter`."""
    source_domain: str = "A"
    """What goes in, such as `summer`."""
    target_domain: str = "B"
    """What comes out, such as `winter`."""
    architecture: Architecture = field(default_factory=Architecture)
    training_size: int | None = None
    """Side of the square training crops in pixels, None where unknown."""
    pixel_range: tuple[float, float] = (-1.0, 1.0)
    """Range of the network's input and output."""
    data: str = ""
    """What it was trained on."""
    licence: str = ""
    """Licence of the weights."""
    notes: str = ""
    """What works and what does not, in plain words."""
    training: dict[str, Any] = field(default_factory=dict)
    """Recipe: epochs, batch size, losses, machine, versions."""
    scores: dict[str, Any] = field(default_factory=dict)
    """What it scored on photos it was not trained on."""

    def to_json(self) -> str:
        """Serialise with sorted keys, so that equal cards are equal bytes."""
        return json.dumps({"format": CARD_FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read what `to_json` wrote; raises `ValueError` on anything else."""
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.pop("format", None) != CARD_FORMAT:
            raise ValueError("not a model card of this version")
        try:
            architecture = Architecture(**fields.pop("architecture"))
            low, high = fields.pop("pixel_range")
            return cls(architecture=architecture, pixel_range=(low, high), **fields)
        except (KeyError, TypeError) as error:
            raise ValueError(f"model card does not fit: {error}") from error


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


def read_card(path: Path) -> Card:
    """Read the card alone, without the tensors; raises `SetupError` on a file without one."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return Card.from_json(metadata[CARD_KEY])
    except FileNotFoundError as error:
        raise SetupError(f"No model file {path}; `solstice models` lists the named ones.") from error
    except (SafetensorError, OSError) as error:
        raise SetupError(f"{path} is not a readable .safetensors file ({error}).") from error
    except KeyError as error:
        raise SetupError(
            f"{path} carries no Solstice card; make one from a checkpoint with `solstice import`."
        ) from error
    except ValueError as error:
        raise SetupError(f"{path}: {error}.") from error


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


def list_models() -> dict[str, Path]:
    """Give the file of each model that can be named; a user's own model hides a shipped one of the same name."""
    return {path.stem: path for folder in _folders() for path in sorted(folder.glob(f"*{SUFFIX}"))}


def find_model(name: str) -> Path:
    """Turn a model's name or file into its file; raises `SetupError` when there is neither."""
    if name.endswith(SUFFIX) or os.sep in name:
        if Path(name).is_file():
            return Path(name)
        raise SetupError(f"There is no model file {name}; `solstice models` lists the models that have names.")
    models = list_models()
    if name in models:
        return models[name]
    known = ", ".join(models) or "none"
    raise SetupError(f"There is no model named {name} (known: {known}); name one of these or a {SUFFIX} file.")


def load_generator(name: str | Path) -> Generator:
    """Load a generator by its name or file; raises `SetupError` when it is missing or damaged."""
    return load_file(find_model(str(name)))


def _folders() -> list[Path]:
    own = os.environ.get("SOLSTICE_MODELS")
    shipped = Path(str(resources.files("engine") / "models"))
    return [shipped, *([Path(own)] if own else [])]
