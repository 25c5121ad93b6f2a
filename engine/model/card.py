"""Model cards and where model files are found, without tensors: importing this module does not load torch."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from engine.errors import SetupError

CARD_KEY = "solstice.card"
CARD_FORMAT = 1
SUFFIX = ".safetensors"


UPSAMPLINGS = ("transpose", "resize")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Hyperparameters that determine a generator's parameters and computation.

    Raises `ValueError` for values that do not describe a network.
    """

    blocks: int = 9
    """Number of residual blocks: 6 for images up to 128x128 and 9 above, as in the paper."""
    ngf: int = 64
    """Channels after the first convolution; the residual blocks have four times as many."""
    affine: bool = False
    """InstanceNorm layers have a learned scale and shift."""
    track_running_stats: bool = False
    """InstanceNorm layers use stored statistics instead of those of each image (some early checkpoints)."""
    upsample: Literal["transpose", "resize"] = "transpose"
    """Up-sampling layers: `transpose` as published; `resize` is nearest-neighbour enlargement followed by a 3x3
    convolution, which avoids checkerboard artefacts (Odena, Dumoulin, Olah, Distill 2016)."""
    learn_residual: bool = False
    """Add the network's output to its input, so that it learns only the change (Kupyn et al., "DeblurGAN", CVPR 2018,
    section 3.2). InstanceNorm discards an image's brightness and contrast; the addition preserves them."""

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.ngf < 1:
            raise ValueError(f"blocks and ngf must be positive, got {self.blocks = } and {self.ngf = }")
        if self.upsample not in UPSAMPLINGS:
            raise ValueError(f"upsample must be one of {UPSAMPLINGS}, got {self.upsample = }")

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this number of pixels."""
        return 4

    @property
    def reach(self) -> int:
        """Radius in pixels of the receptive field, rounded up to a multiple of the stride; norm statistics excluded.

        3 for each 7x7 convolution, 1 + 2 for the strided convolutions, 8 per residual block (two 3x3 at stride 4), and
        3 for the two transposed convolutions or 6 for two 3x3 convolutions on enlarged maps. 84 for 9 blocks and 60 for
        6; 88 and 64 with `resize`.
        """
        exact = 3 + (1 + 2) + 8 * self.blocks + (6 if self.upsample == "resize" else 3) + 3
        return -(-exact // self.stride) * self.stride


@dataclass(frozen=True, kw_only=True)
class Card:
    """Description of a model, stored in the metadata of its safetensors file."""

    name: str
    """Short name, such as `summer2winter`."""
    source_domain: str = "A"
    """Domain of the input, such as `summer`."""
    target_domain: str = "B"
    """Domain of the output, such as `winter`."""
    architecture: Architecture = field(default_factory=Architecture)
    training_size: int | None = None
    """Side of the square training crops in pixels; None if unknown."""
    pixel_range: tuple[float, float] = (-1.0, 1.0)
    """Range of the network's input and output."""
    data: str = ""
    """Training data."""
    licence: str = ""
    """Licence of the weights."""
    notes: str = ""
    """Known strengths and limitations."""
    training: dict[str, Any] = field(default_factory=dict)
    """Recipe: epochs, batch size, losses, machine, versions."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Scores on held-out photos."""

    def to_json(self) -> str:
        """Serialise with sorted keys, so that equal cards have equal bytes."""
        return json.dumps({"format": CARD_FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Parse the output of `to_json`; raises `ValueError` for anything else."""
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.pop("format", None) != CARD_FORMAT:
            raise ValueError("not a model card of this version")
        try:
            architecture = Architecture(**fields.pop("architecture"))
            low, high = fields.pop("pixel_range")
            return cls(architecture=architecture, pixel_range=(low, high), **fields)
        except (KeyError, TypeError) as error:
            raise ValueError(f"model card does not fit: {error}") from error


def read_card(path: Path) -> Card:
    """Read the card of a model file without its tensors; raises `SetupError` for a file without a valid card."""
    try:
        with safe_open(path, framework="numpy") as file:
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


def list_models() -> dict[str, Path]:
    """Return the file of each named model; a model in `$SOLSTICE_MODELS` shadows a shipped one of the same name."""
    return {path.stem: path for folder in _folders() for path in sorted(folder.glob(f"*{SUFFIX}"))}


def find_model(name: str) -> Path:
    """Resolve a model name or file path to a file; raises `SetupError` if there is none."""
    if name.endswith(SUFFIX) or os.sep in name:
        if Path(name).is_file():
            return Path(name)
        raise SetupError(f"There is no model file {name}; `solstice models` lists the models that have names.")
    models = list_models()
    if name in models:
        return models[name]
    known = ", ".join(models) or "none"
    raise SetupError(f"There is no model named {name} (known: {known}); name one of these or a {SUFFIX} file.")


def _folders() -> list[Path]:
    own = os.environ.get("SOLSTICE_MODELS")
    shipped = Path(str(resources.files("engine") / "models"))
    return [shipped, *([Path(own)] if own else [])]
