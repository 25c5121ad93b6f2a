"""What `evaluate` and `sheet` do with files: load generators, run them as the engine does, keep what comes out."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.config import GenerateConfig
from engine.model.card import find_model
from engine.model.weights import load_generator
from engine.runtime.translator import BatchTranslator
from trainer.evaluate import evaluate
from trainer.export import load_pair, write_scores
from trainer.photos import load_photo
from trainer.scores.fid import Fid
from trainer.sheets import Pixels, save_sheet


def score(
    target: Path,
    data: Path,
    *,
    back: Path | None = None,
    reverse: bool = False,
    limit: int | None = None,
    config: GenerateConfig | None = None,
    fid: Fid | None = None,
) -> dict[str, Any]:
    """Score the run or model file `target` on the test photos of `data`; a run's scores are kept in its folder.

    A model file is taken to translate A to B, or B to A with `reverse`; `back` is the model of the other way.
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
    if target.is_dir():
        write_scores(target, scores)
    return scores


def before_after(model: Path, photos: Sequence[Path], out: Path, *, side: int) -> None:
    """Draw `photos`, short sides resized to `side`, above their translations by `model`; write the sheet to `out`."""
    translate = BatchTranslator(load_generator(find_model(str(model))), GenerateConfig(backend="eager"))
    originals = [load_photo(path, load=side) for path in photos]
    save_sheet(
        out, [[_pixels(photo) for photo in originals], [_pixels(translate(photo[None])[0]) for photo in originals]]
    )


def _pixels(photo_HWC: Tensor) -> Pixels:
    pixels: Pixels = photo_HWC.numpy()
    return pixels
