"""Model cards and where model files are found, without tensors: importing this module does not load torch."""

from __future__ import annotations

import dataclasses
import json
import math
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


NETWORKS = ("resnet", "unet")
NORMS = ("instance", "batch", "none")
PADDINGS = ("reflect", "replicate", "zero")
DOWNSAMPLINGS = ("strided", "blur")
UPSAMPLINGS = ("transpose", "resize", "nearest", "blur")
CHANNELS = (1, 3, 4)
"""Gray, RGB, and RGB with alpha."""

MAX_BLOCKS = 64
MAX_NGF = 512
"""Bounds of a network that is built from a file: seven times the blocks and eight times the width of the paper's."""
MIN_LEVELS, MAX_LEVELS = 5, 10
"""Bounds of a U-Net: the fewest levels that the reference can build, and images of 1024x1024."""

_MAX_CARD_CHARACTERS = 1 << 20
_MAX_DEPTH = 16
_TEXTS = ("name", "source_domain", "target_domain", "data", "licence", "notes")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Hyperparameters that determine a generator's parameters and computation.

    Covers the generators of pytorch-CycleGAN-and-pix2pix ("the reference") and of the repositories built on it. Raises
    `ValueError` for values that do not describe a network; a field that the kind of network does not have must keep its
    default, so that one network has one description.
    """

    network: Literal["resnet", "unet"] = "resnet"
    """`resnet`: the generator of CycleGAN; `unet`: that of pix2pix, with skip connections."""
    blocks: int = 9
    """Number of residual blocks of a ResNet: 6 for images up to 128x128 and 9 above, as in the paper."""
    levels: int = 8
    """Number of times that a U-Net halves the image: 7 for 128x128 (`unet_128`), 8 for 256x256 (`unet_256`)."""
    ngf: int = 64
    """Channels after the first convolution; the deepest layers have four (ResNet) or eight (U-Net) times as many."""
    channels_in: int = 3
    """Channels of the input: 1 (gray), 3 (RGB) or 4 (RGB and alpha)."""
    channels_out: int = 3
    """Channels of the output, likewise."""
    norm: Literal["instance", "batch", "none"] = "instance"
    """Normalisation after the convolutions; `batch` uses stored statistics."""
    affine: bool = False
    """InstanceNorm layers have a learned scale and shift. BatchNorm layers always do."""
    track_running_stats: bool = False
    """InstanceNorm layers use stored statistics instead of those of each image (some early checkpoints)."""
    bias: bool = True
    """Convolutions followed by a norm have a bias. In the reference they do only if the norm is `instance`, also where
    there is no norm; the last convolution always has one."""
    padding: Literal["reflect", "replicate", "zero"] = "reflect"
    """Padding inside the residual blocks. The 7x7 convolutions at both ends always reflect."""
    downsample: Literal["strided", "blur"] = "strided"
    """Down-sampling layers of a ResNet: `strided` convolutions, or `blur`, an ordinary convolution and a fixed low-pass
    filter (CUT and FastCUT; Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019)."""
    upsample: Literal["transpose", "resize", "nearest", "blur"] = "transpose"
    """Up-sampling layers of a ResNet: `transpose` as published; `resize` is nearest-neighbour enlargement followed by a
    3x3 convolution, which avoids checkerboard artefacts (Odena, Dumoulin, Olah, Distill 2016), with reflection padding;
    `nearest` the same with zero padding (PyTorch-GAN); `blur` enlarges with a fixed low-pass filter, followed by a 3x3
    convolution with zero padding (CUT and FastCUT)."""
    learn_residual: bool = False
    """Add the network's output to its input, so that it learns only the change (Kupyn et al., "DeblurGAN", CVPR 2018,
    section 3.2). InstanceNorm discards an image's brightness and contrast; the addition preserves them."""

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("blocks", self.blocks, 1, MAX_BLOCKS),
            ("ngf", self.ngf, 1, MAX_NGF),
            ("levels", self.levels, MIN_LEVELS, MAX_LEVELS),
        ):
            if type(value) is not int or not least <= value <= most:  # a bool is an int
                raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value!r:.40}")
        for name in ("affine", "track_running_stats", "bias", "learn_residual"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r:.40}")
        for name, values in (
            ("network", NETWORKS),
            ("norm", NORMS),
            ("padding", PADDINGS),
            ("downsample", DOWNSAMPLINGS),
            ("upsample", UPSAMPLINGS),
            ("channels_in", CHANNELS),
            ("channels_out", CHANNELS),
        ):
            value = getattr(self, name)
            if value not in values or type(value) is not type(values[0]):
                raise ValueError(f"{name} must be one of {values}, got {value!r:.40}")
        self._check_combination()

    def _check_combination(self) -> None:
        absent = ("blocks", "padding", "downsample", "upsample") if self.network == "unet" else ("levels",)
        for name in absent:
            if getattr(self, name) != getattr(Architecture, name):
                raise ValueError(f"{name} does not apply to the network {self.network}, got {getattr(self, name)!r}")
        if self.norm != "instance" and (self.affine or self.track_running_stats):
            raise ValueError(f"affine and track_running_stats apply to the norm instance, not to {self.norm}")
        if self.learn_residual and self.channels_in != self.channels_out:
            raise ValueError(
                f"learn_residual needs as many channels out as in, got {self.channels_in} and {self.channels_out}"
            )

    @property
    def stride(self) -> int:
        """Height and width must be multiples of this number of pixels."""
        return 2**self.levels if self.network == "unet" else 4

    @property
    def reach(self) -> int:
        """Radius in pixels of the receptive field, rounded up to a multiple of the stride; norm statistics excluded.

        A ResNet: 3 for each 7x7 convolution, 1 + 2 for the strided convolutions or twice that with low-pass filters, 8
        per residual block (two 3x3 at stride 4), and for up-sampling 3 by transposed convolutions, 6 by two 3x3
        convolutions on enlarged maps, or 9 with low-pass filters. 84 for 9 blocks and 60 for 6; 88 and 64 with
        `resize`. A U-Net: each of its 4x4 convolutions adds up to 1.5 pixels of its coarser side.
        """
        if self.network == "unet":
            exact = 3 * (self.stride - 1)
        else:
            down = 6 if self.downsample == "blur" else 3
            up = {"transpose": 3, "resize": 6, "nearest": 6, "blur": 9}[self.upsample]
            exact = 3 + down + 8 * self.blocks + up + 3
        return -(-exact // self.stride) * self.stride

    def as_fields(self) -> dict[str, Any]:
        """Return the fields by name, without those at their default that the first cards did not have.

        So the card of a network that they can describe has the same bytes as ever, and older versions read it.
        """
        values = asdict(self)
        return {
            known.name: values[known.name]
            for known in dataclasses.fields(self)
            if known.name in _FIRST_FIELDS or values[known.name] != known.default
        }


_FIRST_FIELDS = ("blocks", "ngf", "affine", "track_running_stats", "upsample", "learn_residual")


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
        content = {"format": CARD_FORMAT, **asdict(self), "architecture": self.architecture.as_fields()}
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Parse the output of `to_json`; raises `ValueError` for anything else."""
        if len(text) > _MAX_CARD_CHARACTERS:
            raise ValueError(f"the model card has {len(text):,} characters, over the limit of {_MAX_CARD_CHARACTERS:,}")
        try:
            fields = json.loads(text)
        except RecursionError:
            raise ValueError("the model card is nested too deeply") from None
        if not isinstance(fields, dict) or fields.pop("format", None) != CARD_FORMAT:
            raise ValueError("not a model card of this version")
        _check_fields(fields)
        try:
            architecture = Architecture(**fields.pop("architecture"))
            low, high = fields.pop("pixel_range")
            return cls(architecture=architecture, pixel_range=(low, high), **fields)
        except (KeyError, TypeError) as error:
            raise ValueError(f"model card does not fit: {error}") from error


def _check_fields(fields: dict[str, Any]) -> None:
    """Raise `ValueError` for a value of the wrong type or out of bounds in a parsed card; unknown names are ignored."""
    for name in _TEXTS:
        if not isinstance(fields.get(name, ""), str):
            raise ValueError(f"model card does not fit: {name} must be a text")  # noqa: TRY004 (a ValueError for whatever is wrong in a file)
    size = fields.get("training_size")
    if size is not None and (type(size) is not int or not 1 <= size <= 1 << 20):
        raise ValueError(f"model card does not fit: training_size must be a number of pixels, got {size!r:.40}")
    pixel_range = fields.get("pixel_range")
    if not isinstance(pixel_range, list) or len(pixel_range) != 2 or not all(_is_number(end) for end in pixel_range):
        raise ValueError("model card does not fit: pixel_range must be two numbers")
    if not isinstance(fields.get("architecture"), dict):
        raise ValueError("model card does not fit: architecture must be an object")  # noqa: TRY004
    for name in ("training", "scores"):
        if not isinstance(fields.get(name, {}), dict) or not _is_shallow(fields.get(name)):
            raise ValueError(f"model card does not fit: {name} must be an object of at most {_MAX_DEPTH} levels")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(float(str(value)))


def _is_shallow(value: object, depth: int = _MAX_DEPTH) -> bool:
    if not isinstance(value, dict | list):
        return True
    return depth > 0 and all(
        _is_shallow(part, depth - 1) for part in (value.values() if isinstance(value, dict) else value)
    )


def read_card(path: Path) -> Card:
    """Read the card of a model file without its tensors; raises `SetupError` for a file without a valid card."""
    try:
        if path.exists() and not path.is_file():
            raise SetupError(f"{path} is not a regular file.")  # opening a pipe would wait for a writer
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
