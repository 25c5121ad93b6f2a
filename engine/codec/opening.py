"""Open an encoded image with Pillow, as one of the formats of `engine.codec.formats` and no other.

Pillow has some sixty plugins. One of them starts Ghostscript on what a file contains (EPS), others decode images of any
size while they open a file (ICNS), and many are for formats that nobody has used for decades.
"""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from engine.codec.formats import TABLE

_NAMES = (*(format.name for format in TABLE), "DIB")


def open_image(data: bytes) -> Image.Image:
    """Open an image without decoding it. Raises `UnidentifiedImageError` if it is in none of the formats."""
    try:
        return Image.open(io.BytesIO(data), formats=_registered())
    except UnidentifiedImageError:
        Image.init()  # registers the plugins of rarer formats
        return Image.open(io.BytesIO(data), formats=_registered())


def _registered() -> list[str]:
    Image.preinit()
    return [name for name in _NAMES if name in Image.OPEN]
