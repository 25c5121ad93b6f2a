"""Read an image's header and refuse what must not be decoded, in microseconds and without touching its pixels."""

from __future__ import annotations

import io
import time
from functools import lru_cache

from PIL import Image, UnidentifiedImageError

from engine.codec.metadata.read import read_opened, with_text_first
from engine.config import DecodeConfig
from engine.errors import SkipImage
from engine.records import Failed, Inspected, Record

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}

# Pillow's own guard is one number for the whole process and stops below the default of `max_pixels`; here every
# image is checked against `max_pixels` before its pixels are touched.
Image.MAX_IMAGE_PIXELS = None


def inspect(data: bytes, max_pixels: int) -> Inspected:
    """Read the header of an encoded image.

    Raises `SkipImage` for an empty file, for bytes that are no image, and for an image of more than `max_pixels`
    pixels (the guard against decompression bombs).
    """
    if not data:
        raise SkipImage("empty file")
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        _register_heif()
    try:
        with Image.open(io.BytesIO(with_text_first(data))) as image:
            width, height = image.size
            _check_size(width * height, max_pixels, "in the file")
            metadata = read_opened(image, data)
            return Inspected(
                data=data,
                format=image.format or "",
                mode=image.mode,
                width=width,
                height=height,
                metadata=metadata,
                translucent=image.has_transparency_data,
                frames=_num_frames(image),
                progressive=bool(image.info.get("progressive")),
            )
    except UnidentifiedImageError:
        raise SkipImage("not an image, or in a format that cannot be read here") from None
    except SkipImage:
        raise
    except Exception as error:  # a plugin may raise anything on hostile bytes
        raise SkipImage(f"header cannot be read: {error}") from error


def inspect_record(record: Record[bytes], config: DecodeConfig) -> Record[Inspected] | Failed:
    """Read the header of a record's image; `Failed` for one that `inspect` refuses or that is too large to work on."""

    def work(record: Record[bytes]) -> Inspected:
        inspected = inspect(record.payload, config.max_pixels)
        # A picture one pixel high grows beyond all bounds when its short side is brought to size.
        width, height = record.options.size.target(inspected.width, inspected.height)
        _check_size(width * height, config.max_pixels, "at working size")
        return inspected

    started_s = time.perf_counter()
    outcome = record.attempt("inspect", work)
    outcome.timings["inspect"] = time.perf_counter() - started_s
    return outcome


@lru_cache(maxsize=1)
def _register_heif() -> None:
    """Teach Pillow HEIC when the first one comes; raises `SkipImage` where the plugin is missing."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise SkipImage("HEIC needs a plugin: pip install 'solstice-engine[heif]'") from None
    register_heif_opener()


def _num_frames(image: Image.Image) -> int:
    """Count frames only where the header says that there are several; counting can walk the whole file."""
    if image.format == "MPO":  # the further frames of a camera's MPO are previews, not an animation
        return 1
    return int(getattr(image, "n_frames", 1)) if getattr(image, "is_animated", False) else 1


def _check_size(num_pixels: int, max_pixels: int, when: str) -> None:
    if num_pixels > max_pixels:
        raise SkipImage(
            f"{num_pixels / 1e6:,.1f} megapixels {when} are over the limit of {max_pixels / 1e6:,.1f} "
            "(--max-pixels raises it)"
        )
