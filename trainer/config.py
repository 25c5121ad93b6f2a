"""Configuration of a training run: one frozen dataclass per concern, defaults as published."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.errors import SetupError
from engine.model.card import Architecture

DiscriminatorNorm = Literal["instance", "none"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Training photos, and how crops are cut from them."""

    train_a: Path
    """Folder of training photos of domain A."""
    train_b: Path
    """Folder of training photos of domain B."""
    held_out: tuple[Path, ...] = ()
    """Folders of test photos; a training photo with the same bytes as one of them is left out."""
    load: int = 286
    """Short side in pixels to which photos are resized before they are cropped."""
    crop: int = 256
    """Side in pixels of the random square crops; a multiple of 4."""
    flip: bool = True
    """Mirror half of the crops left to right."""
    memory_bytes: int = 8 * 2**30
    """Decoded photos are kept in memory up to this many bytes; a larger set streams from disk."""

    def __post_init__(self) -> None:
        if self.crop % 4 or self.crop < 32:
            raise SetupError(f"--crop must be a multiple of 4 and at least 32, not {self.crop}.")
        if self.load < self.crop:
            raise SetupError(f"--load must be at least --crop, not {self.load} with a crop of {self.crop}.")


TRAINED_UPSAMPLINGS = ("transpose", "resize")
"""Up-sampling layers that a generator can be trained with."""
_TRAINED_FIELDS = ("blocks", "ngf", "affine", "track_running_stats", "upsample", "learn_residual")
"""Fields of the architecture that may differ from the published network."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Architecture of the networks."""

    architecture: Architecture = field(default_factory=Architecture)
    """Architecture of both generators."""
    ndf: int = 64
    """Channels after a discriminator's first convolution."""
    discriminator_norm: DiscriminatorNorm = "instance"
    """Normalisation in the discriminators: `instance` as published, which removes the brightness, contrast and colour
    cast of an image; `none` keeps them."""

    def __post_init__(self) -> None:
        if self.ndf < 1:
            raise SetupError(f"--ndf must be at least 1, not {self.ndf}.")
        require_trainable(self.architecture)


def require_trainable(arch: Architecture) -> None:
    """Raise `SetupError` for a generator that only the engine runs."""
    trained = Architecture(**{name: getattr(arch, name) for name in _TRAINED_FIELDS})
    if arch != trained or arch.upsample not in TRAINED_UPSAMPLINGS:
        raise SetupError(
            "Only ResNets from RGB to RGB with instance normalisation, reflection padding and "
            f"{' or '.join(TRAINED_UPSAMPLINGS)} up-sampling can be trained; start from such a model."
        )


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the objective."""

    cycle: float = 10.0
    """Weight of the cycle loss relative to the adversarial loss (lambda)."""
    identity: float = 0.5
    """Weight of the identity loss relative to `cycle`; 0 saves a third of the computation."""
    history: int = 50
    """Number of past translations kept for each discriminator."""

    def __post_init__(self) -> None:
        for name, weight in (("cycle", self.cycle), ("identity", self.identity)):
            if not (math.isfinite(weight) and weight >= 0):
                raise SetupError(f"--{name} must be zero or a positive number, not {weight}.")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Length, learning rate and seed."""

    epochs: float = 200
    """Length of the run; an epoch shows every photo of the larger domain once."""
    decay_epochs: float | None = None
    """Number of last epochs over which the rate falls linearly to zero; None means half of all epochs."""
    batch: int = 1
    """Pairs per step and process."""
    rate: float = 2e-4
    """Learning rate of Adam for one pair per step; scaled by the square root of the pairs per step."""
    betas: tuple[float, float] = (0.5, 0.999)
    """Decay rates of Adam."""
    average: float = 0.0
    """Decay of the moving average of the generators, which is exported; 0 exports the last weights, as published."""
    seed: int = 1
    """Seed of initial weights, order, crops and flips."""

    def __post_init__(self) -> None:
        if not (self.batch >= 1 and all(0 < value < math.inf for value in (self.epochs, self.rate))):
            raise SetupError(f"Epochs, batch and rate must be positive, not {self.epochs}, {self.batch}, {self.rate}.")
        if self.seed < 0:
            raise SetupError(f"--seed must be zero or a positive number, not {self.seed}.")
        if not 0 <= self.average < 1:
            raise SetupError(f"--average must lie between 0 and 1, such as 0.999, not {self.average}.")
        if self.decay_epochs is not None and not 0 <= self.decay_epochs <= self.epochs:
            raise SetupError(
                f"--decay-epochs must lie between 0 and --epochs ({self.epochs}), not {self.decay_epochs}."
            )

    def rate_at(self, epoch: float, pairs_per_step: int) -> float:
        """Return the learning rate `epoch` epochs after the start: constant, then falling linearly to zero.

        The paper (section 7.1) uses 100 epochs of each. The rate is scaled by the square root of the pairs per step,
        the rule for Adam (Malladi et al., NeurIPS 2022).
        """
        decay = self.epochs / 2 if self.decay_epochs is None else self.decay_epochs
        left = max(0.0, self.epochs - epoch)
        share = min(1.0, left / decay) if decay else 1.0
        return self.rate * math.sqrt(pairs_per_step) * share


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """Execution; affects speed and rounding, not the recipe."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on; `auto` uses a GPU if there is one."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """`bf16` runs convolutions under autocast; `fp32` resumes bit for bit on a CPU."""
    compile: bool = True
    """Compile the networks with torch.compile if a C++ compiler is found."""
    log_every: int = 20
    """Steps between two readings in the log and TensorBoard."""
    checkpoint_every_s: float = 600.0
    """Seconds between two checkpoints inside an epoch; one is also written at the end of every epoch."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    data: DataConfig
    start_from: tuple[Path, ...] = ()
    """Exported generators to start from: A to B, then B to A; empty for random weights."""
    networks: NetworkConfig = field(default_factory=NetworkConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def to_json(self) -> str:
        """Return the configuration as JSON."""
        return json.dumps(asdict(self), default=str, indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Parse the output of `to_json`; raises `ValueError` or `TypeError` on anything else."""
        fields: dict[str, Any] = json.loads(text)
        data, networks, schedule = fields["data"], fields["networks"], fields["schedule"]
        return cls(
            data=DataConfig(
                **{
                    **data,
                    "train_a": Path(data["train_a"]),
                    "train_b": Path(data["train_b"]),
                    "held_out": tuple(Path(folder) for folder in data["held_out"]),
                }
            ),
            start_from=tuple(Path(model) for model in fields.get("start_from", ())),
            networks=NetworkConfig(
                **{**networks, "architecture": Architecture(**networks["architecture"])},
            ),
            losses=LossConfig(**fields["losses"]),
            schedule=ScheduleConfig(**{**schedule, "betas": tuple(schedule["betas"])}),
            machine=MachineConfig(**fields["machine"]),
        )
