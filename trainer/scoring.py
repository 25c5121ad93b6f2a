"""Scores, sheets and comparisons of runs and model files, with generators run as the engine runs them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.codec.arrays import Pixels
from engine.config import GenerateConfig
from engine.model.card import find_model, read_card
from engine.model.weights import load_generator
from engine.runtime.translator import BatchTranslator
from trainer.evaluate import evaluate
from trainer.export import load_pair, write_scores
from trainer.photos import load_photo
from trainer.scores.fid import Fid
from trainer.sheets import save_sheet


def score(
    target: Path,
    data: Path,
    *,
    back: Path | None = None,
    reverse: bool = False,
    limit: int | None = None,
    config: GenerateConfig | None = None,
    fid: Fid | None = None,
    curated: Path | None = None,
) -> dict[str, Any]:
    """Score the run or model file `target` on the test photos of `data`; a run's scores are written to its folder.

    A model file translates A to B, or B to A with `reverse`; `back` is the model of the other direction. The scores on
    a `curated` part of the data, with a classifier trained on that, are added under that name.
    """
    with tempfile.TemporaryDirectory() as scratch:
        there, returning = load_pair(target, Path(scratch))
        if back is not None:
            returning = load_generator(back)
        forth, other = (
            None if generator is None else BatchTranslator(generator, config) for generator in (there, returning)
        )
        a_to_b, b_to_a = (other, forth) if reverse else (forth, other)
        scores = evaluate(data, a_to_b, b_to_a, limit=limit, fid=fid).as_dict()
        if curated is not None:
            scores["curated"] = evaluate(curated, a_to_b, b_to_a, limit=limit, fid=fid).as_dict()
    if target.is_dir():
        write_scores(target, scores)
    return scores


def before_after(model: Path, photos: Sequence[Path], out: Path, *, side: int) -> None:
    """Draw `photos`, short sides resized to `side`, above their translations by `model`; write the sheet to `out`."""
    _draw_below(photos, [model], out, side)


def compare(first: Path, second: Path, photos: Sequence[Path], out: Path | None, *, side: int) -> list[tuple[str, ...]]:
    """Return a table of all scores in the cards of two models: a header, then name, first and second value.

    With `out`, `photos` are drawn above their translations by the first and by the second model.
    """
    cards = [read_card(find_model(str(model))) for model in (first, second)]
    flat = [dict(_flatten(card.scores)) for card in cards]
    names = list(dict.fromkeys(name for scores in flat for name in scores))
    if out is not None:
        _draw_below(photos, [first, second], out, side)
    header = ("score", *(str(model) for model in (first, second)))
    return [header, *((name, *(_shown(scores.get(name)) for scores in flat)) for name in names)]


def _draw_below(photos: Sequence[Path], models: Sequence[Path], out: Path, side: int) -> None:
    originals = [load_photo(path, load=side) for path in photos]
    rows = [[_pixels(photo) for photo in originals]]
    for model in models:
        translate = BatchTranslator(load_generator(find_model(str(model))), GenerateConfig(backend="eager"))
        rows.append([_pixels(translate(photo[None])[0]) for photo in originals])
    save_sheet(out, rows)


def _flatten(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in scores.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    return "-" if value is None else f"{value:g}"


def _pixels(photo_HWC: Tensor) -> Pixels:
    pixels: Pixels = photo_HWC.numpy()
    return pixels
