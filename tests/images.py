"""Small photos made in the test, in every format, whole and damaged."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def picture(width: int = 61, height: int = 43, seed: int = 0) -> Image.Image:
    """Draw a smooth RGB image that compresses like a photo and is the same for the same seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """Encode with Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photo(width: int = 61, height: int = 43, seed: int = 0, format: str = "JPEG", **options: Any) -> bytes:
    """Draw and encode."""
    return encoded(picture(width, height, seed), format, **options)


def oriented(orientation: int, format: str = "JPEG", **options: Any) -> bytes:
    """Encode `picture()` with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(), format, exif=exif, **options)


def pixels(data: bytes) -> NDArray[np.int16]:
    """Decode with Pillow to signed [H, W, 3], so that differences can be taken."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).astype(np.int16)


def bomb(width: int = 65_000, height: int = 65_000) -> bytes:
    """Make a valid PNG header that announces 4 gigapixels, with hardly anything behind it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"\0" * 100))


def flipped(data: bytes, position: float = 0.6) -> bytes:
    """Turn over the bits of a few bytes."""
    damaged = bytearray(data)
    start = int(len(data) * position)
    for i in range(start, start + 8):
        damaged[i] ^= 0xFF
    return bytes(damaged)


def psnr_db(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio of two uint8 images in decibels."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
