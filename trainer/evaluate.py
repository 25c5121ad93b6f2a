"""Scores of a pair of generators on test photos, translated as the engine serves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import SetupError
from trainer.photos import image_paths, load_photo, training_paths
from trainer.scores.blobs import blob_energy
from trainer.scores.checkerboard import checkerboard_energy
from trainer.scores.classifier import DomainClassifier, shrink, train_classifier
from trainer.scores.distance import sliced_wasserstein
from trainer.scores.fid import Fid
from trainer.scores.seams import seam_energy
from trainer.scores.similarity import mean_absolute_error, ssim

SIDE = 256
"""Side in pixels of the squares that are cut from the middle of test photos."""
BATCH = 8

TranslateBatch = Callable[[Tensor], Tensor]
"""Maps uint8 [N, H, W, 3] to the same, as a `BatchTranslator` does."""


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Scores of one generator."""

    photos: int
    """Number of test photos translated."""
    distance: float
    """Sliced Wasserstein distance of the translations from real photos of the target domain."""
    taken_for_target: float
    """Share of the translations that the classifier assigns to the target domain."""
    originals_taken_for_target: float
    """The same share of the photos before translation."""
    real_taken_for_target: float
    """The same share of real photos of the target domain."""
    gap_closed: float
    """Position of `taken_for_target` between the originals, 0, and the real photos, 1."""
    cycle_error: float | None
    """Mean absolute difference of the photo after there and back, range [-1, 1]; None without the way back."""
    ssim: float
    """Structural similarity of the luminance of translation and original."""
    checkerboard: float
    """Energy at the periods of 4 and 2 pixels over that of real photos of the target domain."""
    blobs: float
    """Unexplained low-frequency change of colour over the colour differences within real photos (scores/blobs.py)."""
    seams: float
    """Colour contrast at borders of white areas over that of the originals; 1 for no seams (scores/seams.py)."""
    fid: float | None = None
    """Frechet Inception Distance to real photos of the target domain, if requested."""
    kid: float | None = None
    """Kernel Inception Distance, if requested."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Reference values for the scores of both directions."""

    classifier_accuracy: float
    """Share of real test photos of both domains that the classifier assigns correctly."""
    distance_of_domains: float
    """Sliced Wasserstein distance between the real test photos of both domains."""
    distance_within_a: float
    """The same between two halves of the test photos of A: the least that can be reached."""
    distance_within_b: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Result of `evaluate`."""

    scale: Scale
    a_to_b: Direction | None
    b_to_a: Direction | None

    def as_dict(self) -> dict[str, object]:
        """Return plain data, numbers rounded to four digits."""
        return {name: _rounded(part) for name, part in asdict(self).items() if part is not None}


def evaluate(
    data: Path,
    a_to_b: TranslateBatch | None,
    b_to_a: TranslateBatch | None,
    *,
    limit: int | None = None,
    fid: Fid | None = None,
) -> Scores:
    """Score one or both directions on the photos of `data` (trainA, trainB for the classifier, testA, testB).

    At most `limit` test photos of each domain are used. Raises `SetupError` if a folder is missing or has fewer than
    two photos.
    """
    test_a, test_b = (load_squares(image_paths(data / name)[:limit]) for name in ("testA", "testB"))
    classifier = train_on(data)
    scale = Scale(
        classifier_accuracy=classifier.accuracy(test_a, test_b),
        distance_of_domains=sliced_wasserstein(test_a, test_b),
        distance_within_a=sliced_wasserstein(test_a[::2], test_a[1::2]),
        distance_within_b=sliced_wasserstein(test_b[::2], test_b[1::2]),
    )

    def taken_for_a(pixels_NHWC: Tensor) -> float:
        return 1 - classifier.share_of_b(pixels_NHWC)

    return Scores(
        scale=scale,
        a_to_b=a_to_b and score_direction(test_a, test_b, a_to_b, b_to_a, classifier.share_of_b, fid),
        b_to_a=b_to_a and score_direction(test_b, test_a, b_to_a, a_to_b, taken_for_a, fid),
    )


def score_direction(
    originals: Tensor,
    targets: Tensor,
    there: TranslateBatch,
    back: TranslateBatch | None,
    taken: Callable[[Tensor], float],
    fid: Fid | None = None,
) -> Direction:
    """Score the generator `there` on uint8 photos [N, H, W, 3]; `taken` returns the share assigned to the target."""
    translated = in_batches(there, originals)
    before, after, real = taken(originals), taken(translated), taken(targets)
    return Direction(
        photos=len(originals),
        distance=sliced_wasserstein(targets, translated),
        taken_for_target=after,
        originals_taken_for_target=before,
        real_taken_for_target=real,
        gap_closed=(after - before) / max(real - before, 1e-6),
        cycle_error=None if back is None else mean_absolute_error(originals, in_batches(back, translated)),
        ssim=ssim(originals, translated),
        checkerboard=checkerboard_energy(translated) / checkerboard_energy(targets),
        blobs=blob_energy(originals, translated, targets),
        seams=seam_energy(originals, translated),
        **({} if fid is None else fid(translated, targets)),
    )


def train_on(data: Path) -> DomainClassifier:
    """Train the classifier on the training photos of `data`, without those that are test photos too."""
    held_out = (data / "testA", data / "testB")
    a, b = (
        torch.cat([shrink(load_square(path)[None]) for path in training_paths(data / name, held_out)])
        for name in ("trainA", "trainB")
    )
    return train_classifier(a, b)


def load_squares(paths: Sequence[Path]) -> Tensor:
    """Load photos as uint8 [N, SIDE, SIDE, 3]."""
    if len(paths) < 2:
        raise SetupError(f"{paths[0].parent} holds one photo; evaluation needs at least two of each domain.")
    return torch.stack([load_square(path) for path in paths])


def load_square(path: Path) -> Tensor:
    """Load the central square of a photo as uint8 [SIDE, SIDE, 3]."""
    pixels_HWC = load_photo(path, load=SIDE)
    top, left = ((side - SIDE) // 2 for side in pixels_HWC.shape[:2])
    return pixels_HWC[top : top + SIDE, left : left + SIDE]


def in_batches(translate: TranslateBatch, pixels_NHWC: Tensor) -> Tensor:
    """Translate uint8 photos [N, H, W, 3] in batches."""
    return torch.cat([translate(batch) for batch in torch.split(pixels_NHWC, BATCH)])


def _rounded(part: dict[str, float | int | None]) -> dict[str, float | int | None]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in part.items()}
