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

from engine.errors import SetupError, SkipImage, StopRun
from engine.model.pixels import to_network
from trainer.config import DataConfig
from trainer.photos import load_photo, training_paths
from trainer.sampling import Cut

logger = logging.getLogger(__name__)


class Photos(Protocol):
    """Training photos of one domain."""

    def __len__(self) -> int:
        """Return the number of photos."""
        ...

    def crops(self, cuts: Sequence[Cut]) -> Tensor:
        """Return crops [N, 3, crop, crop] in [-1, 1], channels last, on the training device."""
        ...


class MemoryPhotos:
    """Decoded photos in the memory of one device."""

    def __init__(self, photos: Sequence[Tensor], crop: int) -> None:
        """Keep `photos`, each uint8 [H, W, 3] with both sides at least `crop`."""
        self._photos = photos
        self._crop = crop

    def __len__(self) -> int:
        return len(self._photos)

    def crops(self, cuts: Sequence[Cut]) -> Tensor:
        """Return crops [N, 3, crop, crop] in [-1, 1], channels last."""
        return to_network(torch.stack([cut_square(self._photos[cut.photo], cut, self._crop) for cut in cuts]))


class StreamedPhotos:
    """Photos on disk, decoded for each step by the engine's decoder (DALI); crops equal those of `MemoryPhotos`."""

    def __init__(self, paths: Sequence[Path], config: DataConfig, device: torch.device) -> None:
        """Use the photos `paths`, all of which can be decoded."""
        self._paths = paths
        self._config = config
        self._device = device
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="photos")

    def __len__(self) -> int:
        return len(self._paths)

    def crops(self, cuts: Sequence[Cut]) -> Tensor:
        """Return crops [N, 3, crop, crop] in [-1, 1], channels last; raises `StopRun` if a photo cannot be read."""
        squares = list(self._threads.map(self._cut, cuts))
        return to_network(torch.stack(squares).to(self._device))

    def _cut(self, cut: Cut) -> Tensor:
        try:
            photo_HWC = load_photo(self._paths[cut.photo], load=self._config.load, crop=self._config.crop)
        except SkipImage as error:
            raise StopRun(f"A photo can no longer be read: {error}; put it back or start a new run.") from error
        return cut_square(photo_HWC, cut, self._config.crop)


def cut_square(photo_HWC: Tensor, cut: Cut, crop: int) -> Tensor:
    """Return uint8 [crop, crop, 3], cut from [H, W, 3]."""
    top, left = cut.corner(photo_HWC.shape[0], photo_HWC.shape[1], crop)
    square_HWC = photo_HWC[top : top + crop, left : left + crop]
    return square_HWC.flip(1) if cut.mirror else square_HWC


def load_photos(folder: Path, config: DataConfig, device: torch.device) -> Photos:
    """Read every training photo of `folder`, short side resized to `config.load`.

    They are kept in memory, or streamed from disk if they exceed `config.memory_bytes`. Photos that cannot be used are
    logged once and left out. Raises `SetupError` if fewer than two remain.
    """
    usable: list[Path] = []
    photos: list[Tensor] | None = []
    reasons: list[str] = []
    num_bytes = 0
    paths = training_paths(folder, config.held_out)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        outcomes = threads.map(lambda path: _load_or_reason(path, config), paths)
        for path, outcome in zip(paths, outcomes, strict=True):
            if isinstance(outcome, str):
                logger.warning("Left out %s.", outcome)
                reasons.append(outcome)
                continue
            usable.append(path)
            num_bytes += outcome.numel()
            if num_bytes > config.memory_bytes:
                photos = None
            if photos is not None:
                photos.append(outcome.to(device))
    _check_enough(folder, len(usable), reasons)
    if photos is None:
        logger.warning("%s is too large for memory (%.1f GB decoded): streaming.", folder, num_bytes / 1e9)
        return StreamedPhotos(usable, config, device)
    return MemoryPhotos(photos, config.crop)


def _load_or_reason(path: Path, config: DataConfig) -> Tensor | str:
    try:
        return load_photo(path, load=config.load, crop=config.crop)
    except SkipImage as reason:
        return str(reason)


def _check_enough(folder: Path, usable: int, reasons: Sequence[str]) -> None:
    if usable < 2:
        hint = f"; the first reason: {reasons[0]}" if reasons else ""
        raise SetupError(
            f"{folder} holds {usable} usable photos, training needs at least two and works from some hundreds{hint}."
        )
