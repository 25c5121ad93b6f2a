"""Pixels to the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from engine.config import EncodeConfig
from engine.errors import SkipImage
from engine.records import Encoded, Failed, Picture, Record

FORMATS = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif"}
"""Names for `--format`, and the suffix each gives a file."""

_MAX_SIDE = {"JPEG": 65_535, "WEBP": 16_383}
"""Pixels; limits of the formats themselves."""


class Encoder:
    """Encode translated pictures; safe to call from several threads at once."""

    def __init__(self, config: EncodeConfig) -> None:
        self._config = config

    def __call__(self, records: list[Record[Picture] | Failed]) -> list[Record[Encoded] | Failed]:
        """Answer each record, in order, with its file's bytes or with why there are none."""
        return [r if isinstance(r, Failed) else r.attempt("encode", self._encode) for r in records]

    def _encode(self, record: Record[Picture]) -> Encoded:
        picture = record.payload
        target = output_format(record.options.format, picture.format)
        limit = _MAX_SIDE.get(target)
        if limit is not None and max(picture.width, picture.height) > limit:
            raise SkipImage(f"{target} cannot hold {picture.width}x{picture.height} pixels; use --format png or tiff")
        return Encoded(
            data=self._data(picture.pixels_HWC.numpy(), target),
            format=target,
            width=picture.width,
            height=picture.height,
            notes=picture.notes,
        )

    def _data(self, pixels_HWC: np.ndarray[Any, np.dtype[np.uint8]], target: str) -> bytes:
        if target == "JPEG":
            # libjpeg-turbo straight from the array: no copy into a Pillow image, a third less time.
            return bytes(
                simplejpeg.encode_jpeg(
                    pixels_HWC, self._config.quality, "RGB", self._config.subsampling.replace(":", "")
                )
            )
        buffer = io.BytesIO()
        Image.fromarray(pixels_HWC).save(buffer, target, **self._save_options(target))
        return buffer.getvalue()

    def _save_options(self, target: str) -> dict[str, Any]:
        options: dict[str, Callable[[], dict[str, Any]]] = {
            "PNG": lambda: {"compress_level": 4},
            "TIFF": lambda: {"compression": "tiff_lzw"},
            "WEBP": lambda: {"quality": self._config.quality},
        }
        return options[target]()


def output_format(asked: str, came_in: str) -> str:
    """Name the output format as Pillow does; `keep` keeps what can be written and turns the rest into PNG or JPEG."""
    if asked != "keep":
        return asked.upper()
    kept = {"MPO": "JPEG", "JPEG2000": "JPEG", "HEIF": "JPEG", "AVIF": "JPEG"}.get(came_in, came_in)
    return kept if kept.lower() in FORMATS else "PNG"
