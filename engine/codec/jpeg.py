"""Decode JPEGs with libjpeg-turbo in its strict mode, and tell damage from harmless oddities.

libjpeg warns of everything that it did not expect and paints over the gap. In strict mode the first warning is an
error. Some warnings concern bytes that no pixel depends on: a profile segment, a version number, bytes between
segments. `rewritten` leaves such bytes out (ITU-T T.81, annex B, has the syntax); what then decodes without a warning,
to the same pixels as before, counts as undamaged. In a progressive JPEG a broken scan of high frequencies may concern
fine detail alone; such an image is translated with a remark.

Without simplejpeg, Pillow decodes, and damage other than truncation goes unnoticed.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from PIL import Image

from engine.codec.arrays import Pixels
from engine.codec.damage import Damaged
from engine.codec.opening import open_image
from engine.errors import SkipImage
from engine.records import Inspected

try:
    import simplejpeg
except ImportError:  # optional: Pillow takes over
    simplejpeg = None

ColourSpace = Literal["RGB", "GRAY", "CMYK"]

LIBJPEG_COLOURS: dict[str, ColourSpace] = {"RGB": "RGB", "L": "RGB", "CMYK": "CMYK"}
"""Colours that libjpeg decodes each of Pillow's modes to; gray becomes RGB there."""

SOI, EOI, SOS, APP14, COM = 0xD8, 0xD9, 0xDA, 0xEE, 0xFE
APPLICATION = frozenset(range(0xE0, 0xF0))
STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
SEQUENTIAL_FRAMES = frozenset({0xC0, 0xC1})
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
FINE_DETAIL = 1.0
"""Levels of 255 that broken scans of a progressive JPEG may change on average without the image being refused."""
UNKNOWN_SAMPLING = "Could not determine subsampling level"


def is_jpeg(source: Inspected) -> bool:
    """Return whether `decode` takes an image: a JPEG of 8 bits in gray, colour or CMYK."""
    return source.format in ("JPEG", "MPO") and source.mode in LIBJPEG_COLOURS


def is_baseline(source: Inspected) -> bool:
    """Return whether an image is a JPEG of one pass over gray or YCbCr: the kind that GPUs decode."""
    return source.format == "JPEG" and not source.progressive and source.mode in ("RGB", "L")


def decode(
    data: bytes, colours: ColourSpace, *, least: tuple[int, int] | None = None
) -> tuple[Pixels, tuple[str, ...]]:
    """Decode a JPEG strictly.

    Args:
        data: The whole file.
        colours: Colours of the result. CMYK is what the file stores, inverted or not.
        least: Height and width in pixels that are needed. The inverse DCT then makes the smallest n/8 of the image that
            has them, which is up to eight times as fast.

    Returns:
        uint8 [H, W, C] and remarks.

    Raises:
        Damaged: The data contradict themselves. Damage that happens to make another valid stream cannot be seen.
    """
    try:
        return _strict(data, colours, least), ()
    except ValueError as error:
        reason = str(error)
    if UNKNOWN_SAMPLING in reason:
        return _by_pillow(data, colours), ("unusual chroma sampling; damage cannot be checked in it",)
    clean = rewritten(data)
    is_cut = all(marker != EOI for marker, _, _ in segments(data))
    oddity = reason.removeprefix("Corrupt JPEG data: ").removeprefix("Warning: ")
    if _is_same_image(clean, data + b"\xff\xd9" if is_cut and _shows_its_end(data) else data, colours):
        return _strict(clean, colours, least), (f"odd but undamaged JPEG: {oddity}",)
    if is_cut or _share_of_broken_scans(clean, colours) > FINE_DETAIL:
        raise Damaged(reason)
    return decode_damaged(data, colours, least=least), (f"slightly damaged, in fine detail alone: {oddity}",)


def _shows_its_end(data: bytes) -> bool:
    """Return whether strict decoding finds out that pixels are missing: one scan holds all components of the frame."""
    if simplejpeg is None:
        return False
    frames = [body for marker, body, _ in segments(data) if marker in SEQUENTIAL_FRAMES]
    scans = [body for marker, body, _ in segments(data) if marker == SOS]
    return len(frames) == len(scans) == 1 and frames[0][5:6] == scans[0][:1]


def _is_same_image(clean: bytes, data: bytes, colours: ColourSpace) -> bool:
    """Return whether `clean` is undamaged and Pillow decodes `data` to the same pixels."""
    try:
        return np.array_equal(_strict(clean, colours, None), _by_pillow(data, colours))
    except (SkipImage, ValueError):
        return False


def _share_of_broken_scans(data: bytes, colours: ColourSpace) -> float:
    """Return the mean of what the broken scans of a progressive JPEG change, in levels of 255; infinite for any other.

    Each scan is tried on top of the intact ones before it.
    """
    intact = b"\xff\xd8"
    for marker, body, scan in segments(data):
        if marker in SEQUENTIAL_FRAMES:
            return math.inf
        if marker == EOI:
            break
        part = struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + scan
        if marker == SOS:
            try:
                _strict(intact + part + b"\xff\xd9", colours, (1, 1))
            except ValueError:
                continue
        intact += part
    try:
        without = _strict(intact + b"\xff\xd9", colours, None)
        painted = decode_damaged(data, colours)
    except (SkipImage, ValueError):
        return math.inf
    return float(np.abs(without.astype(np.int16) - painted).mean())


def decode_damaged(data: bytes, colours: ColourSpace, *, least: tuple[int, int] | None = None) -> Pixels:
    """Decode as much of a damaged JPEG as can be decoded; as `decode`, without a check."""
    if simplejpeg is not None:
        try:
            return _by_libjpeg(rewritten(data), colours, least, strict=False)
        except ValueError:
            pass  # Pillow reads a little more, and its reason is as good
    return _by_pillow(data, colours)


def rewritten(data: bytes) -> bytes:
    """Return a JPEG of only what its pixels depend on: tables, frame, scans, and the markers that name the colours.

    Left out are other application segments, comments, bytes between segments, zeros or ones that fill up a scan, and
    what follows the end. The scan parameters of a sequential frame, which must be constants, become these constants.
    """
    parts = [b"\xff\xd8"]
    sequential = False
    for marker, body, scan in segments(data):
        if marker == EOI:
            break
        if marker in SEQUENTIAL_FRAMES:
            sequential = True
        if marker == 0xE0 and body.startswith(b"JFIF\x00"):
            parts.append(JFIF)
            continue
        if marker in APPLICATION | {COM} and not (marker == APP14 and body.startswith(b"Adobe")):
            continue
        if marker == SOS and sequential:
            body = body[:-3] + b"\x00\x3f\x00"
        parts.append(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + _without_fill(scan))
    return b"".join([*parts, b"\xff\xd9"])


def end_of_image(data: bytes) -> int | None:
    """Return where the first image of a JPEG file ends; None where its end is missing.

    A file that ends like an image and has no other one behind its first scan is not searched.
    """
    if data.endswith(b"\xff\xd9") and data.find(b"\xff\xd8\xff", data.find(b"\xff\xda")) < 0:
        return len(data)
    return next((end for marker, _, _, end in _positions(data) if marker == EOI), None)


def segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield marker, body and, behind a start of scan, its entropy-coded data, up to the end of the first image."""
    for marker, start, body_end, end in _positions(data):
        yield marker, data[start:body_end], data[body_end:end]


def _positions(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield each marker with the start and end of its body, and the end of the entropy-coded data behind it."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 2 <= len(data):
        marker = data[at + 1]
        if marker == EOI:
            yield EOI, at + 2, at + 2, at + 2
            return
        if marker in (0x00, 0xFF, SOI) or marker in STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        body_end = end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker == SOS:
            following = _END_OF_SCAN.search(data, end)
            end = len(data) if following is None else following.start()
        yield marker, at + 4, body_end, end
        at = end


_END_OF_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")


def _without_fill(scan: bytes) -> bytes:
    """Remove zeros or ones behind the last entropy-coded byte; a stuffed zero, which belongs to its FF, stays."""
    for fill in (b"\x00", b"\xff"):
        trimmed = scan.rstrip(fill)
        if len(trimmed) < len(scan):
            return trimmed + (b"\x00" if trimmed.endswith(b"\xff") else b"")
    return scan


def _strict(data: bytes, colours: ColourSpace, least: tuple[int, int] | None) -> Pixels:
    """Decode with libjpeg-turbo; raises `ValueError` with its warning."""
    if simplejpeg is None:
        try:
            return _by_pillow(data, colours)
        except SkipImage as error:
            raise ValueError(str(error)) from None
    return _by_libjpeg(data, colours, least, strict=True)


def _by_libjpeg(data: bytes, colours: ColourSpace, least: tuple[int, int] | None, *, strict: bool) -> Pixels:
    smaller: dict[str, Any] = {} if least is None else {"min_height": least[0], "min_width": least[1]}
    pixels: Pixels = simplejpeg.decode_jpeg(data, colours, strict=strict, **smaller)
    return pixels


def _by_pillow(data: bytes, colours: ColourSpace) -> Pixels:
    """Decode without a check for damage; CMYK as the file stores it, which Pillow inverts."""
    try:
        with open_image(data) as image:
            image.load()
            if colours == "CMYK":
                return 255 - np.asarray(image)
            pixels = np.array(image.convert("L" if colours == "GRAY" else "RGB"))
            return pixels[..., None] if colours == "GRAY" else pixels
    except Exception as error:  # a plugin may raise anything on hostile bytes
        raise SkipImage(f"cannot be decoded: {error}") from error


def decode_rgb(data: bytes) -> Pixels:
    """Decode an undamaged JPEG to uint8 [H, W, 3] and nothing else; raises `ValueError` with the decoder's reason."""
    return _strict(data, "RGB", None)


def encode(pixels_HWC: Pixels, quality: int, subsampling: str) -> bytes:
    """Encode uint8 [H, W, 3] as a baseline JPEG without metadata; `subsampling` such as `4:2:0`."""
    if simplejpeg is None:
        buffer = io.BytesIO()
        Image.fromarray(pixels_HWC).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
        return buffer.getvalue()
    # libjpeg-turbo straight from the array: no copy into a Pillow image, a third less time.
    return bytes(simplejpeg.encode_jpeg(pixels_HWC, quality, "RGB", subsampling.replace(":", "")))
