"""Images that Pillow cannot read, or not at their full depth: tifffile, imagecodecs and rawpy read them.

All three are optional. A decoded image is held as `Samples` and brought to 16 bits per channel, from where it is
rounded to 8.
"""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.codec.formats import is_installed
from engine.errors import SkipImage
from engine.system.extras import install_hint

Array = NDArray[Any]
White = float

_HAS_WHITE_AT_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR, _LAB = 0, 2, 3, 5, 6, 8
_KINDS = {0: "L", 1: "L", _RGB: "RGB", _PALETTE: "RGB", _SEPARATED: "CMYK", _YCBCR: "RGB"}
"""Pillow's mode for each photometric interpretation of TIFF 6.0 that is read here."""
_CHANNELS = {"L": 1, "RGB": 3, "CMYK": 4}
_COMPRESSIONS = {1, 5, 7, 8, 32773, 32946, 34925, 50000}
"""None, LZW, JPEG, deflate, PackBits, LZMA, Zstandard. Those that hold an image file decode it by its own header."""
_PREMULTIPLIED = 1
_FLOAT, _SIGNED = 3, 2
_RELATIVE_COLORIMETRIC, _BLACK_POINT_COMPENSATION = 1, 0x2000


# libpng's notes on how it is called, such as for interlaced images, which come out right; and what tifffile finds
# wrong, which is raised as well where it matters.
logging.getLogger("imagecodecs").setLevel(logging.ERROR)
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class Samples:
    """A decoded image before it is brought to 8 bits."""

    values: Array
    """[H, W, C], of any unsigned or floating type."""
    kind: str
    """L, RGB or CMYK; in CMYK, the largest value is full ink."""
    white: White
    """Value of full intensity."""
    alpha: Array | None = None
    """[H, W] of the same type, 0 to `white`."""
    premultiplied: bool = False
    """`values` are multiplied by `alpha`."""
    notes: tuple[str, ...] = ()


def installed() -> bool:
    """Return whether TIFFs and PNGs can be read at their full depth."""
    return is_installed("tifffile") and is_installed("imagecodecs")


def require() -> None:
    """Raise `SkipImage` with what to install where the readers are missing."""
    if not installed():
        raise SkipImage(f"Pillow cannot read this kind of image; {install_hint('deep')} installs a reader")


def tiff_header(data: bytes) -> tuple[int, int, str, int, bool]:
    """Return width, height, mode (Pillow's name), bits per channel and whether there is alpha, for a TIFF.

    Raises:
        SkipImage: The file is no TIFF, or of a kind that is not read.
    """
    import tifffile

    with _tiff_errors(), tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        kind = _kind_of(page)
        return page.imagewidth, page.imagelength, kind, page.bitspersample, bool(page.extrasamples)


def read_tiff(data: bytes) -> Samples:
    """Decode the first image of a TIFF; raises `SkipImage` with the reason where that fails."""
    import tifffile

    with _tiff_errors(), tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        kind = _kind_of(page)
        values = page.asarray()
        values = values.reshape(page.shape)
        if values.ndim == 3 and page.planarconfig == 2:
            values = np.moveaxis(values, 0, -1)
        if page.photometric == _PALETTE and page.colormap is not None:
            return Samples(np.moveaxis(_palette(page.colormap)[:, values], 0, -1), "RGB", 65535.0)
        values = values[..., None] if values.ndim == 2 else values
        samples = _scaled(values, page, kind)
    return replace(samples, values=samples.white - samples.values) if page.photometric == 0 else samples


def read_png(data: bytes) -> Samples:
    """Decode a PNG of 16 bits per channel; raises `SkipImage` with the reason where that fails."""
    import imagecodecs

    try:
        values = imagecodecs.png_decode(data)
    except Exception as error:  # whatever libpng finds wrong
        raise SkipImage(f"cannot be decoded: {error}") from error
    return _channels(values[..., None] if values.ndim == 2 else values, float(np.iinfo(values.dtype).max))


def read_jp2(data: bytes, depth: int) -> Samples:
    """Decode a JPEG 2000 of `depth` bits per channel, more than 8; raises `SkipImage` with the reason where that fails.

    Pillow rounds such values up without a limit: white becomes 256, which is stored as 0.
    """
    import imagecodecs

    try:
        values = imagecodecs.jpeg2k_decode(data)
    except Exception as error:  # whatever OpenJPEG finds wrong
        raise SkipImage(f"cannot be decoded: {error}") from error
    if values.dtype.kind != "u":
        raise SkipImage("JPEG 2000 of signed integers is not read")
    return _channels(values[..., None] if values.ndim == 2 else values, float(2**depth - 1))


def to_16_bit(samples: Samples) -> tuple[NDArray[np.uint16], NDArray[np.uint16] | None]:
    """Return uint16 [H, W, C], 0 to 65535, and alpha [H, W] likewise; premultiplied colours are divided by alpha."""
    values = samples.values.astype(np.float32) / samples.white
    alpha = None if samples.alpha is None else samples.alpha.astype(np.float32) / samples.white
    if alpha is not None and samples.premultiplied:
        values = values / np.maximum(alpha, 1e-6)[..., None]
    return _as_uint16(values), None if alpha is None else _as_uint16(alpha)


def to_8_bit(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Round 0 to 65535 to 0 to 255."""
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def transform(
    values: NDArray[np.uint16], source: bytes, target: bytes, *, gray: bool = False, compensated: bool
) -> NDArray[np.uint16]:
    """Convert uint16 [H, W, 3], or [H, W] with `gray`, from one profile to another, to [H, W, 3].

    Relative colorimetric, where asked for with black point compensation, as for 8 bits.
    """
    import imagecodecs

    converted: NDArray[np.uint16] = imagecodecs.cms_transform(
        np.ascontiguousarray(values),
        source,
        target,
        colorspace="gray" if gray else "rgb",
        outcolorspace="rgb",
        outdtype="u2",
        intent=_RELATIVE_COLORIMETRIC,
        flags=_BLACK_POINT_COMPENSATION if compensated else 0,
    )
    return converted


def encode_png(values_HWC: NDArray[np.uint16]) -> bytes:
    """Encode uint16 [H, W, 3 or 4] as a PNG of 16 bits per channel without metadata."""
    import imagecodecs

    return bytes(imagecodecs.png_encode(np.ascontiguousarray(values_HWC), level=4))


def encode_tiff(values_HWC: NDArray[np.uint16], icc: bytes | None, dpi: tuple[float, float] | None) -> bytes:
    """Encode uint16 [H, W, 3 or 4] as a TIFF of 16 bits per channel, LZW with a predictor."""
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        values_HWC,
        photometric="rgb",
        compression="lzw",
        predictor=True,
        extrasamples=["unassalpha"] if values_HWC.shape[2] == 4 else None,
        iccprofile=icc,
        resolution=dpi,
        resolutionunit=None if dpi is None else 2,
        rowsperstrip=64,
        metadata=None,
        software=False,
        byteorder="<",
    )
    return buffer.getvalue()


def raw_header(data: bytes) -> tuple[int, int]:
    """Return width and height of an upright RAW photo; raises `SkipImage` where it cannot be opened."""
    with _open_raw(data) as raw:
        width, height = raw.sizes.width, raw.sizes.height
        return (height, width) if raw.sizes.flip in (5, 6) else (width, height)


def read_raw(data: bytes) -> Samples:
    """Develop a RAW photo, upright, with the white balance of the camera, to sRGB of 16 bits."""
    try:
        with _open_raw(data) as raw:
            values = raw.postprocess(use_camera_wb=True, output_bps=16)
    except SkipImage:
        raise
    except Exception as error:  # whatever LibRaw finds wrong
        raise SkipImage(f"cannot be decoded: {error}") from error
    return Samples(values, "RGB", 65535.0, notes=("developed from RAW with the camera's white balance",))


def raw_thumbnail(data: bytes) -> bytes | None:
    """Return the JPEG that a camera put into a RAW photo; None where there is none."""
    import rawpy

    try:
        with _open_raw(data) as raw:
            thumbnail = raw.extract_thumb()
    except (SkipImage, rawpy.LibRawError):
        return None
    return bytes(thumbnail.data) if thumbnail.format == rawpy.ThumbFormat.JPEG else None


def _open_raw(data: bytes) -> Any:
    import rawpy

    try:
        return rawpy.imread(io.BytesIO(data))
    except Exception as error:  # whatever LibRaw finds wrong
        raise SkipImage(f"not a RAW photo that LibRaw reads: {error}") from error


def _channels(values: Array, white: float) -> Samples:
    """Take gray or RGB, and alpha behind it, from an array [H, W, 1 to 4]."""
    num_colours = 1 if values.shape[2] < 3 else 3
    alpha = values[..., -1] if values.shape[2] in (2, 4) else None
    return Samples(values[..., :num_colours], "L" if num_colours == 1 else "RGB", white, alpha)


def _as_uint16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    levels: NDArray[np.uint16] = np.clip(np.nan_to_num(values) * 65535.0 + 0.5, 0, 65535).astype(np.uint16)
    return levels


def _kind_of(page: Any) -> str:
    if page.compression not in _COMPRESSIONS:
        raise SkipImage(f"TIFF of a kind that is not read: compressed by method {int(page.compression)}")
    kind = _KINDS.get(int(page.photometric))
    if int(page.sampleformat) == _SIGNED:
        raise SkipImage(f"TIFF of a kind that is not read: signed integers ({page.dtype!s})")
    if kind is None or page.ndim > 3 or page.imagedepth > 1:
        raise SkipImage(f"TIFF of a kind that is not read: {page.photometric!s}, {page.dtype!s}, {page.axes}")
    return kind


def _palette(colormap: Array) -> Array:
    """Return a palette of 0 to 65535; old scanners wrote 0 to 255 (as libtiff, tif_getimage.c, finds out too)."""
    return colormap if colormap.max(initial=0) > 255 else colormap.astype(np.uint16) * np.uint16(257)


def _scaled(values: Array, page: Any, kind: str) -> Samples:
    notes: tuple[str, ...] = ()
    if int(page.sampleformat) == _FLOAT:
        if not np.isfinite(values).all():
            values, notes = np.nan_to_num(values, posinf=0.0, neginf=0.0), ("values that are no numbers became black",)
        white = 1.0
    else:
        # 32 bits of gray are mostly values of 16 bits or less, as for Pillow's 32-bit integers.
        white = 65535.0 if kind == "L" and page.bitspersample == 32 else float(2**page.bitspersample - 1)
    largest = float(values.max(initial=0))
    if largest > white:
        white = largest
        notes += (f"brightness scaled: the largest value, {white:g}, is taken as white",)
    count = _CHANNELS[kind]
    alpha, premultiplied = None, False
    if values.shape[2] > count and page.extrasamples:
        premultiplied = int(page.extrasamples[0]) == _PREMULTIPLIED
        if int(page.extrasamples[0]) in (1, 2):
            alpha = values[..., count]
    if page.photometric == _HAS_WHITE_AT_ZERO and alpha is not None:
        raise SkipImage("TIFF of a kind that is not read: inverted gray with alpha")
    return Samples(values[..., :count], kind, white, alpha, premultiplied, notes)


@contextmanager
def _tiff_errors() -> Iterator[None]:
    """Turn whatever tifffile raises on a damaged or unknown file into `SkipImage`."""
    try:
        yield
    except SkipImage:
        raise
    except (LookupError, struct.error):  # of tables that the file does not have; their text is a number
        raise SkipImage("cannot be decoded: the directory of the TIFF is broken") from None
    except Exception as error:
        raise SkipImage(f"cannot be decoded: {error}") from error
