"""Export of a checkpoint as two model files with cards."""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from engine.codec.arrays import Pixels
from engine.errors import SetupError, SkipImage
from engine.model.card import Card
from engine.model.network import ResnetGenerator
from engine.model.weights import Generator, load_generator, save_generator
from trainer.checkpoints import Checkpoint, load_checkpoint
from trainer.preview import EpochSheet
from trainer.sheets import save_sheet

logger = logging.getLogger(__name__)

GRID_SIDE = 256
"""Short side in pixels of the photos in an exported grid."""
SCORES_NAME = "scores.json"
"""File in a run's folder with the scores that `evaluate` wrote and `export` puts into the cards."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Description of a pair, given by hand."""

    domain_a: str = "A"
    """Content of the photos of A, such as `summer`."""
    domain_b: str = "B"
    """Content of the photos of B."""
    data: str = ""
    """Description and origin of the training photos."""
    licence: str = ""
    """Licence of the weights."""
    notes: str = ""
    """What works and what does not, in plain words."""

    def __post_init__(self) -> None:
        a, b = self.domain_a, self.domain_b
        if not a or not b or a == b or "/" in a + b:
            raise SetupError(f"The names of the domains must differ and have no slash, not {a!r} and {b!r}.")


def export(run: Path, folder: Path, labels: Labels, dtype: torch.dtype = torch.float16) -> tuple[Path, Path]:
    """Write the generators of the folder `run` as `folder`/<a>2<b>.safetensors and <b>2<a>.safetensors; returns both.

    Beside each, <name>.jpg shows fixed test photos, their translations and the way back; the card names the photos.
    The cards include the scores that `evaluate` wrote to `run`. Raises `SetupError` if there is no usable checkpoint.
    """
    checkpoint = load_checkpoint(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(f'Cannot write to "{folder}": {error.strerror}.') from error
    scores = read_scores(run)
    a, b = labels.domain_a, labels.domain_b
    grids = draw_grids(checkpoint)
    paths = (folder / f"{a}2{b}.safetensors", folder / f"{b}2{a}.safetensors")
    for path, direction, source, target in ((paths[0], "a_to_b", a, b), (paths[1], "b_to_a", b, a)):
        photos, rows = grids.get(direction, ([], []))
        if rows:
            save_sheet(path.with_suffix(".jpg"), rows)
        card = Card(
            name=path.stem,
            source_domain=source,
            target_domain=target,
            training_size=checkpoint.config.data.crop,
            data=labels.data,
            licence=labels.licence,
            notes=labels.notes,
            training={**describe_training(checkpoint), "grid": photos},
            scores=scores_of(scores, direction),
        )
        save_generator(path, generator_of(checkpoint, direction), card, dtype)
    return paths


def draw_grids(checkpoint: Checkpoint) -> dict[str, tuple[list[str], list[list[Pixels]]]]:
    """Return the test photos' names and rows of photo, translation, return for each direction; empty without photos."""
    try:
        sheet = EpochSheet(checkpoint.config, load=GRID_SIDE)
    except (SetupError, SkipImage) as error:
        logger.warning("Exporting without grids of test photos: %s", error)
        return {}
    rows = sheet.rows(generator_of(checkpoint, "a_to_b"), generator_of(checkpoint, "b_to_a"))
    names_a, names_b = ([path.name for path in paths] for paths in sheet.paths)
    return {"a_to_b": (names_a, rows[: len(names_a)]), "b_to_a": (names_b, rows[len(names_a) :])}


def scores_of(scores: dict[str, Any], direction: str) -> dict[str, Any]:
    """Return the part of `scores` that belongs into the card of one direction; `curated` is a part of its own."""
    if direction not in scores:
        return {}
    own = {"scale": scores["scale"], **scores[direction]}
    return {**own, "curated": scores_of(scores["curated"], direction)} if "curated" in scores else own


def load_pair(target: Path, scratch: Path) -> tuple[Generator, Generator | None]:
    """Load both generators of a run's folder, or the one of a model file.

    The run is exported to the folder `scratch` first, so that the loaded generators are the ones that would be served.
    """
    if target.is_dir():
        there, back = export(target, scratch, Labels())
        return load_generator(there), load_generator(back)
    return load_generator(target), None


def generator_of(checkpoint: Checkpoint, direction: str) -> ResnetGenerator:
    """Return the generator `a_to_b` or `b_to_a` of a checkpoint: the averaged one if an average is kept."""
    generator = ResnetGenerator(checkpoint.config.networks.architecture)
    generator.load_state_dict((checkpoint.averages or checkpoint.networks)[direction])
    return generator.eval()


def describe_training(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return recipe and progress for a model card."""
    config = checkpoint.config
    return {
        "recipe": "CycleGAN (Zhu et al., ICCV 2017)",
        "steps": checkpoint.steps_done,
        "pairs_seen": checkpoint.steps_done * checkpoint.facts["pairs_per_step"],
        "epochs": round(checkpoint.steps_done / checkpoint.facts["steps_per_epoch"], 2),
        "load": config.data.load,
        "crop": config.data.crop,
        "flip": config.data.flip,
        "ndf": config.networks.ndf,
        "discriminator_norm": config.networks.discriminator_norm,
        "losses": asdict(config.losses),
        "schedule": asdict(config.schedule),
        "precision": config.machine.precision,
        "python": platform.python_version(),
        **checkpoint.facts,
    }


def write_scores(run: Path, scores: dict[str, Any]) -> None:
    """Write `scores` to the folder `run`."""
    (run / SCORES_NAME).write_text(json.dumps(scores, indent=2) + "\n")


def read_scores(run: Path) -> dict[str, Any]:
    """Read the output of `write_scores`; empty if there is none."""
    path = run / SCORES_NAME
    scores: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return scores
