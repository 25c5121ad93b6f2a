"""The photos of one domain as training crops: decoded once and kept in memory as uint8."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from engine.errors import SetupError, SkipImage
from engine.pixels import to_network
from trainer.config import DataConfig
from trainer.photos import load_photo, training_paths
from trainer.sampling import Cut

logger = logging.getLogger(__name__)


class Photos(Protocol):
    """The training photos of one domain."""

    def __len__(self) -> int:
        """Count the photos."""
        ...

    def crops(self, cuts: Sequence[Cut]) -> Tensor:
        """Cut [N, 3, crop, crop] floats in [-1, 1], channels last, on the training device."""
        ...


class MemoryPhotos:
    """Photos decoded to the memory of one device."""

    def __init__(self, photos: Sequence[Tensor], crop: int) -> None:
        """Keep `photos`, each uint8 [H, W, 3] with both sides at least `crop`."""
        self._photos = photos
        self._crop = crop

    def __len__(self) -> int:
        return len(self._photos)

    def crops(self, cuts: Sequence[Cut]) -> Tensor:
        """Cut [N, 3, crop, crop] floats in [-1, 1], channels last."""
        return to_network(torch.stack([self._cut(cut) for cut in cuts]))

    def _cut(self, cut: Cut) -> Tensor:
        photo_HWC, crop = self._photos[cut.photo], self._crop
        top, left = cut.corner(photo_HWC.shape[0], photo_HWC.shape[1], crop)
        square_HWC = photo_HWC[top : top + crop, left : left + crop]
        return square_HWC.flip(1) if cut.mirror else square_HWC


def load_photos(folder: Path, config: DataConfig, device: torch.device) -> Photos:
    """Read the training photos of `folder`, short side resized to `config.load`.

    Those that do not fit into `config.memory_bytes` stream from disk. Photos that cannot be used are named once
    in the log and left out. Raises `SetupError` when fewer than two are left.
    """
    paths = training_paths(folder, config.held_out)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        outcomes = list(threads.map(lambda path: _load_or_reason(path, config), paths))
    photos = [outcome for outcome in outcomes if isinstance(outcome, Tensor)]
    _check_enough(folder, len(photos), [outcome for outcome in outcomes if isinstance(outcome, str)])
    return MemoryPhotos([photo.to(device) for photo in photos], config.crop)


def _load_or_reason(path: Path, config: DataConfig) -> Tensor | str:
    try:
        return load_photo(path, load=config.load, crop=config.crop)
    except SkipImage as reason:
        return str(reason)


def _check_enough(folder: Path, usable: int, reasons: Sequence[str]) -> None:
    for reason in reasons:
        logger.warning("Left out %s.", reason)
    if usable < 2:
        hint = f"; the first reason: {reasons[0]}" if reasons else ""
        raise SetupError(
            f"{folder} holds {usable} usable photos, training needs at least two and works from some hundreds{hint}."
        )
