"""Comparisons of photos that earlier runs translated, made from the photos and their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from engine.archive.report.gallery import Gallery, rank
from engine.codec.decode import Decoder
from engine.codec.encode import on_white
from engine.codec.header import inspect_record
from engine.config import DecodeConfig
from engine.errors import SkipImage
from engine.options import Options, Size
from engine.records import Failed, Record

Reader = Callable[[], bytes]


def add_earlier_photos(gallery: Gallery, photos: Mapping[str, tuple[Reader, Reader]]) -> int:
    """Add the photos that `gallery` wants and does not have, and return how many of them cannot be read.

    `photos` has two functions for each key that return the bytes of the photo and of its result.
    """
    decoder = Decoder(DecodeConfig(allow_damaged=True))
    unreadable = 0
    for key in sorted(photos, key=rank):
        if gallery.has(key) or not gallery.wants(key):
            continue
        before_HWC, after_HWC = (_pixels(decoder, read) for read in photos[key])
        if before_HWC is None or after_HWC is None:
            unreadable += 1
        else:
            gallery.show(key, before_HWC, after_HWC)
    return unreadable


def _pixels(decoder: Decoder, read: Reader) -> NDArray[np.uint8] | None:
    """Return upright sRGB pixels, uint8 [H, W, 3], translucent ones on white; None when they cannot be read."""
    try:
        record = Record(key="", payload=read(), options=Options(size=Size.parse("native")))
    except (OSError, SkipImage):
        return None
    (decoded,) = decoder([inspect_record(record, DecodeConfig())])
    return None if isinstance(decoded, Failed) else on_white(decoded.payload, decoded.payload.pixels_HWC)
