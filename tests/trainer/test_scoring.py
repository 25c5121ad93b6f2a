from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor

from engine.config import GenerateConfig
from engine.errors import SetupError
from engine.model.card import read_card
from trainer import evaluate, scoring
from trainer.export import Labels, export
from trainer.scores.classifier import DomainClassifier, train_classifier
from trainer.scores.fid import Fid

EAGER = GenerateConfig(backend="eager")


@pytest.fixture(scope="module")
def judges() -> dict[bytes, DomainClassifier]:
    """Return the classifiers that tests of this file have trained, by the photos that each was trained on."""
    return {}


@pytest.fixture(autouse=True)
def _small_and_once(monkeypatch: pytest.MonkeyPatch, judges: dict[bytes, DomainClassifier]) -> None:
    """Score squares of 64 pixels, and train a classifier once for the same photos: equal seeds give equal ones."""

    def trained(a: Tensor, b: Tensor) -> DomainClassifier:
        key = a.numpy().tobytes() + b.numpy().tobytes()
        return judges.get(key) or judges.setdefault(key, train_classifier(a, b))

    monkeypatch.setattr(evaluate, "SIDE", 64)
    monkeypatch.setattr(evaluate, "train_classifier", trained)


def test_a_run_is_scored_in_both_directions_and_stores_its_scores(run: Path, domains: Path) -> None:
    scores = scoring.score(run, domains, config=EAGER)

    assert scores == json.loads((run / "scores.json").read_text())
    scale = scores["scale"]
    assert scale["classifier_accuracy"] == 1  # warm and cold are easy
    assert scale["distance_within_a"] < scale["distance_of_domains"]
    for direction in ("a_to_b", "b_to_a"):
        part = scores[direction]
        assert part["photos"] == 6
        assert part["originals_taken_for_target"] == 0
        assert part["real_taken_for_target"] == 1
        assert part["gap_closed"] == pytest.approx(part["taken_for_target"])
        assert 0 < part["cycle_error"] < 2
        assert -1 <= part["ssim"] <= 1
        assert part["checkerboard"] > 0
        assert part["blobs"] >= 0
        assert part["seams"] > 0


def test_a_model_file_is_scored_alone_or_with_the_opposite_direction(run: Path, domains: Path, tmp_path: Path) -> None:
    there, back = export(run, tmp_path / "models", Labels())
    alone = scoring.score(there, domains, config=EAGER, limit=3)
    assert "b_to_a" not in alone
    assert alone["a_to_b"]["photos"] == 3
    assert alone["a_to_b"]["cycle_error"] is None
    both = scoring.score(back, domains, back=there, reverse=True, config=EAGER, limit=3)
    assert both["a_to_b"]["taken_for_target"] == alone["a_to_b"]["taken_for_target"]
    assert both["b_to_a"]["cycle_error"] is not None


def test_fid_without_its_library_is_an_error_with_the_remedy(
    run: Path, domains: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(SetupError, match=r"pip install 'solstice-engine\[fid\]'"):
        scoring.score(run, domains, config=EAGER, limit=3, fid=Fid())


def test_a_sheet_shows_photos_above_their_translations(run: Path, domains: Path, tmp_path: Path) -> None:
    there, _ = export(run, tmp_path / "models", Labels())
    photos = sorted((domains / "testA").iterdir())[:3]
    scoring.before_after(there, photos, tmp_path / "sheet.jpg", side=48)
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.format == "JPEG"
        assert sheet.width >= 3 * 64
        assert sheet.height >= 2 * 48


def test_scores_on_the_curated_part_stand_beside_those_on_all_photos_in_the_card(
    run: Path, domains: Path, tmp_path: Path
) -> None:
    scores = scoring.score(run, domains, config=EAGER, limit=3, curated=domains)
    there, _ = export(run, tmp_path / "models", Labels())
    card = read_card(there)
    assert card.scores["curated"] == {"scale": scores["curated"]["scale"], **scores["curated"]["a_to_b"]}
    assert card.scores["photos"] == 3


def test_two_models_are_compared_by_all_scores_of_their_cards_and_by_a_sheet(
    run: Path, domains: Path, tmp_path: Path
) -> None:
    first, _ = export(run, tmp_path / "bare", Labels())
    scoring.score(run, domains, config=EAGER, limit=3)
    second, _ = export(run, tmp_path / "scored", Labels())
    photos = sorted((domains / "testA").iterdir())[:2]
    table = scoring.compare(first, second, photos, tmp_path / "sheet.png", side=48)
    rows = {name: values for name, *values in table}
    assert rows["score"] == [str(first), str(second)]
    assert rows["gap_closed"] == ["-", f"{read_card(second).scores['gap_closed']:g}"]
    assert rows["scale.classifier_accuracy"] == ["-", "1"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height > 3 * 48
