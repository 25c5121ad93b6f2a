"""Small photos made in the test, in every format, whole and damaged."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from engine.codec.geometry import upright
from engine.codec.header import inspect
from engine.records import Metadata

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


def described(data: bytes) -> Metadata:
    """Read the metadata of an encoded image as the engine does."""
    return inspect(data, max_pixels=1_000_000_000).metadata


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn [H, W] or [H, W, C] upright from EXIF orientation 1 to 8."""
    return upright(torch.from_numpy(np.array(pixels)), orientation).numpy()


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


def zeroed(data: bytes, position: float = 0.5, num_bytes: int = 3000) -> bytes:
    """Overwrite bytes with zeros, as a bad sector does."""
    start = int(len(data) * position)
    return data[:start] + bytes(num_bytes) + data[start + num_bytes :]


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Return a PNG chunk with its length and checksum."""
    return _chunk(name, content)


def png_with(data: bytes, *chunks: bytes) -> bytes:
    """Insert chunks behind the header of a PNG."""
    return data[:33] + b"".join(chunks) + data[33:]


def psnr_db(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio of two uint8 images in decibels."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def make_archive(folder: Path, count: int) -> Path:
    """Write `count` photos into two folders below `folder`, the 21st of them damaged; return `folder`."""
    for i in range(count):
        path = folder / f"{i % 2}" / f"{i:02}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photo(96 + 16 * (i % 3), 112, seed=i))
    (folder / "0/20.jpg").write_bytes(photo(200, 150)[:-2000])
    return folder
