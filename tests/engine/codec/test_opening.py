"""Only the formats of the table are opened, whatever Pillow can read besides."""

from __future__ import annotations

import io

import pytest
from PIL import Image, UnidentifiedImageError

from engine.codec.formats import TABLE
from engine.codec.header import inspect
from engine.codec.opening import open_image
from engine.errors import SkipImage
from tests.images import encoded, photo, picture

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"


def test_every_format_that_pillow_itself_writes_is_opened() -> None:
    for name in ("BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "SGI", "TGA", "TIFF", "WEBP"):
        with open_image(encoded(picture(), name)) as image:
            assert image.format == name
    assert {"BMP", "WEBP", "AVIF"} <= {format.name for format in TABLE}


def test_postscript_is_not_run() -> None:
    with Image.open(io.BytesIO(POSTSCRIPT)) as image:
        assert image.format == "EPS", "Pillow would start Ghostscript to decode it"
    with pytest.raises(UnidentifiedImageError):
        open_image(POSTSCRIPT)
    with pytest.raises(SkipImage, match="not an image, or in a format that cannot be read here"):
        inspect(POSTSCRIPT, 10_000_000)


def test_an_icon_set_of_apple_is_not_opened() -> None:
    with pytest.raises(SkipImage, match="cannot be read here"):
        inspect(encoded(picture(), "ICNS"), 10_000_000)
    assert inspect(photo(), 10_000_000).format == "JPEG"
