"""Read an image as a script with Pillow reads it: no turning by EXIF, no colour profile, no linear light."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.errors import SetupError


@dataclass(frozen=True)
class PlainImage:
    """Pixels of a file as Pillow converts them to RGB."""

    pixels_HWC: Tensor
    """uint8 [H, W, 3]."""
    is_lossy: bool
    """The format does not keep pixels exactly."""


def read_plain(path: Path) -> PlainImage:
    """Read an image file; raises `SetupError` if it cannot be read."""
    try:
        with Image.open(path) as image:
            is_lossy = image.format not in ("PNG", "BMP", "PPM", "TIFF", "GIF")
            return PlainImage(torch.from_numpy(np.array(image.convert("RGB"))), is_lossy)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SetupError(f"{path} cannot be read as an image ({error}).") from error
