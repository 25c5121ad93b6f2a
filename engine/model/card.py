"""What a model file says about its generator, and where model files are; needs no torch."""

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
"""Key of the card in the metadata of a safetensors file."""
CARD_FORMAT = 1
SUFFIX = ".safetensors"
UPSAMPLINGS = ("transpose", "resize")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Everything that decides which parameters a generator has and what it computes."""

    blocks: int = 9
    """Residual blocks: 6 for images up to 128x128, 9 above, as in the paper."""
    ngf: int = 64
    """Channels after the first convolution; the residual blocks have four times as many."""
    affine: bool = False
    """InstanceNorm layers carry a learned scale and shift."""
    track_running_stats: bool = False
    """InstanceNorm layers use stored statistics instead of each image's own (some early checkpoints)."""
    upsample: Literal["transpose", "resize"] = "transpose"
    """Up-sampling layers: `transpose` as published; `resize` is nearest-neighbour enlargement, then a 3x3
    convolution, which cannot produce checkerboards (Odena, Dumoulin, Olah, Distill 2016)."""
    learn_residual: bool = False
    """The network's output is added to its input, so that it learns the change alone (Kupyn et al., "DeblurGAN",
    CVPR 2018, section 3.2). InstanceNorm drops an image's brightness and contrast; the addition keeps them."""

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.ngf < 1:
            raise ValueError(f"blocks and ngf must be positive, got {self.blocks = } and {self.ngf = }")
        if self.upsample not in UPSAMPLINGS:
            raise ValueError(f"upsample must be one of {UPSAMPLINGS}, got {self.upsample = }")

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this many pixels."""
        return 4

    @property
    def reach(self) -> int:
        """How many pixels to each side can influence an output pixel (statistics of InstanceNorm aside).

        3 for each 7x7 end, 1 + 2 for the strided convolutions, 8 per residual block (two 3x3 at stride 4) and
        3 for the two transposed convolutions, or 6 for the two 3x3 convolutions on enlarged maps; rounded up to
        a multiple of the stride. 84 for 9 blocks and 60 for 6; with `resize` 88 and 64.
        """
        exact = 3 + (1 + 2) + 8 * self.blocks + (6 if self.upsample == "resize" else 3) + 3
        return -(-exact // self.stride) * self.stride


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a user must know about a generator, stored beside its tensors."""

    name: str
    """Short name, such as `summer2winter`."""
    source_domain: str = "A"
    """Domain of the input, such as `summer`."""
    target_domain: str = "B"
    """Domain of the output, such as `winter`."""
    architecture: Architecture = field(default_factory=Architecture)
    training_size: int | None = None
    """Side of the square training crops in pixels, None where unknown."""
    pixel_range: tuple[float, float] = (-1.0, 1.0)
    """Range of the network's input and output."""
    data: str = ""
    """Training data."""
    licence: str = ""
    """Licence of the weights."""
    notes: str = ""
    """Strengths and weaknesses, in plain words."""
    training: dict[str, Any] = field(default_factory=dict)
    """Recipe: epochs, batch size, losses, machine, versions."""
    scores: dict[str, Any] = field(default_factory=dict)
    """Scores on photos that were not used for training."""

    def to_json(self) -> str:
        """Serialise with sorted keys, so that equal cards are equal bytes."""
        return json.dumps({"format": CARD_FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Parse what `to_json` wrote; raises `ValueError` on anything else."""
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
    """Read the card alone, without the tensors; raises `SetupError` on a file without one."""
    try:
        with safe_open(path, framework="np") as file:
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
    """Return the file of each named model; a user's own model hides a shipped one of the same name."""
    return {path.stem: path for folder in _folders() for path in sorted(folder.glob(f"*{SUFFIX}"))}


def find_model(name: str) -> Path:
    """Return the file of a model given by name or path; raises `SetupError` when there is neither."""
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
