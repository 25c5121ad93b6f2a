"""Photo files to pixels, with the engine's decoder, so that training photos look like served ones."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from engine.codec.decode import Decoder
from engine.codec.formats import is_image_name
from engine.codec.header import inspect
from engine.config import DecodeConfig
from engine.errors import SetupError, SkipImage
from engine.options import Options, Size
from engine.records import Failed, Record

logger = logging.getLogger(__name__)

_CONFIG = DecodeConfig()
_decode = Decoder(_CONFIG)


def load_photo(path: Path, *, load: int, crop: int = 0) -> Tensor:
    """Decode one photo upright, in sRGB, as uint8 [H, W, 3], its short side resized to `load` pixels.

    Gray, CMYK and translucent photos are converted to RGB as in serving. Raises `SkipImage` with the file's name if it
    cannot be decoded or its short side is below `crop`.
    """
    try:
        source = inspect(path.read_bytes(), _CONFIG.max_pixels)
    except (SkipImage, OSError) as error:
        raise SkipImage(f"{path.name}: {error}") from error
    if min(source.width, source.height) < crop:
        raise SkipImage(f"{path.name}: {source.width}x{source.height} is smaller than the crop of {crop}")
    options = Options(size=Size("short", load, load))
    (outcome,) = _decode([Record(key=path.name, payload=source, options=options)])
    if isinstance(outcome, Failed):
        raise SkipImage(f"{path.name}: {outcome.reason}")
    return outcome.payload.pixels_HWC


def training_paths(folder: Path, held_out: Iterable[Path]) -> list[Path]:
    """List the photos of `folder` by name, without those whose bytes equal a photo in a `held_out` folder.

    Some collections contain the same photo in several splits.
    """
    test_hashes = {_hash(path) for test in held_out for path in image_paths(test)}
    paths = image_paths(folder)
    kept = [path for path in paths if not test_hashes or _hash(path) not in test_hashes]
    if len(kept) < len(paths):
        logger.warning("Left out %d photos of %s that are also test photos.", len(paths) - len(kept), folder)
    return kept


def image_paths(folder: Path) -> list[Path]:
    """List the image files of `folder`, found by suffix as in `solstice convert`, by name.

    Raises `SetupError` if there are none. Folders, pipes and broken links are left out.
    """
    if not folder.is_dir():
        raise SetupError(f"There is no folder {folder}.")
    paths = sorted(path for path in folder.iterdir() if is_image_name(path.name) and path.is_file())
    if not paths:
        raise SetupError(f"{folder} holds no images; they are told by suffixes such as .jpg and .png.")
    return paths


def _hash(path: Path) -> bytes:
    """Return a hash of the bytes, of the name for a file that cannot be read, which is left out when it is decoded."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return hashlib.sha256(os.fsencode(path)).digest()
