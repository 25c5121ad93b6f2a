"""Read EXIF, XMP, IPTC and the colour profile without decoding a photo, and correct them for the output.

    metadata = read(data)                               from the bytes of any format that Pillow opens
    metadata = for_output(metadata, width, height)      true of the upright, translated image

Pillow reads the containers. The short functions at the end are what it leaves out: PNG chunks behind the
pixels, and IPTC in TIFF and PNG. `embed` writes the blocks into the output.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from engine.codec.metadata import exif as exif_block
from engine.records import NOTHING, Metadata

XMP_IN_PNG = "XML:com.adobe.xmp"
IPTC_IN_PNG = "Raw profile type iptc"
IPTC_RESOURCE = 0x0404


JPEG_BLOCKS = {"exif", "xmp", "photoshop", "icc_profile", "dpi", "comment"}
"""What Pillow calls the parts of a JPEG header that hold metadata."""


def read(data: bytes) -> Metadata:
    """Read the metadata of a photo in any format that Pillow opens; pixels are not decoded.

    `orientation` is 1 for TIFF and HEIF, whose Pillow decoders turn the image themselves. A photo that
    cannot be opened has no metadata: whoever decodes it will find out why. Nothing is raised.
    """
    try:
        with Image.open(io.BytesIO(with_text_first(data))) as image:
            return read_opened(image, data)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return Metadata(notes=(f"metadata could not be read: {error}",))


def read_opened(image: Image.Image, data: bytes) -> Metadata:
    """Read the metadata of an image that Pillow has opened from `data` and not yet loaded."""
    info = image.info
    if image.format == "JPEG" and not info.keys() & JPEG_BLOCKS:
        return NOTHING
    notes: list[str] = []
    exif = exif_of_tiff(image, notes) if image.format == "TIFF" else strip_prefix(info.get("exif"))
    icc = as_bytes(info.get("icc_profile"))
    turned_by_decoder = image.format in ("TIFF", "HEIF")
    return Metadata(
        orientation=1 if exif is None or turned_by_decoder else exif_block.orientation(exif),
        exif=exif,
        xmp=as_bytes(info.get("xmp")),
        iptc=iptc_of(image, data),
        icc=icc,
        adobe_rgb=icc is None and exif is not None and exif_block.claims_adobe_rgb(exif),
        dpi=sound_dpi(info.get("dpi")),
        comment=as_bytes(info.get("comment")) if image.format in ("JPEG", "MPO", "GIF") else None,
        texts=texts_of_png(image) if isinstance(image, PngImagePlugin.PngImageFile) else (),
        notes=tuple(notes),
    )


def upright(pixels_HWC: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turn pixels, [H, W] or [H, W, C], as orientation 1 to 8 asks (Exif 3.0, section 4.6.5.1)."""
    if orientation >= 5:
        pixels_HWC = pixels_HWC.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels_HWC = pixels_HWC[::-1]
    if orientation in (2, 3, 6, 7):
        pixels_HWC = pixels_HWC[:, ::-1]
    return np.ascontiguousarray(pixels_HWC)


def stripped(metadata: Metadata) -> Metadata:
    """Return what `--strip` leaves: the colour profile, without which the colours would change."""
    return Metadata(icc=metadata.icc)


# Reading, container by container.


def with_text_first(data: bytes) -> bytes:
    """Return a PNG without its pixels, so that Pillow sees the chunks behind them; other data as it is."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    chunks = list(png_chunks(data))
    kinds = [kind for kind, _, _ in chunks]
    behind_pixels = kinds[kinds.index(b"IDAT") :] if b"IDAT" in kinds else []
    if not {b"eXIf", b"iTXt", b"zTXt", b"tEXt"} & set(behind_pixels):
        return data
    kept = [data[start:end] for kind, start, end in chunks if kind not in (b"IDAT", b"IEND")]
    return b"".join([data[:8], *kept, struct.pack(">I", 0), b"IDAT", b"\x35\xaf\x06\x1e"])


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each whole chunk."""
    start = 8
    while start + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + size
        if end > len(data):
            return
        yield kind, start, end
        start = end


def texts_of_png(image: PngImagePlugin.PngImageFile) -> tuple[tuple[str, str], ...]:
    """Return the text chunks that are not containers of XMP, EXIF or IPTC."""
    return tuple(
        (keyword, str(text))
        for keyword, text in image.info.items()  # `image.text` would decode the pixels
        if isinstance(keyword, str) and isinstance(text, str)
        if keyword != XMP_IN_PNG and not keyword.startswith("Raw profile type")
    )


def iptc_of(image: Image.Image, data: bytes) -> bytes | None:
    """Return the IPTC records of a JPEG, TIFF or PNG."""
    if image.format in ("JPEG", "MPO"):
        return as_bytes(image.info.get("photoshop", {}).get(IPTC_RESOURCE))
    if image.format == "PNG":
        return iptc_of_png(image.info.get(IPTC_IN_PNG))
    if image.format == "TIFF":
        return iptc_of_tiff(image, data)
    return None


def iptc_of_png(text: Any) -> bytes | None:
    """Decode ImageMagick's convention: name, length, then hexadecimal digits of a Photoshop block."""
    if not isinstance(text, str):
        return None
    words = text.split()
    try:
        block = bytes.fromhex("".join(words[2:]))
    except ValueError:
        return None
    return iptc_in_photoshop(block) if block.startswith(b"8BIM") else block or None


def iptc_of_tiff(image: Image.Image, data: bytes) -> bytes | None:
    """Return tag 33723, or the records inside Photoshop's own block."""
    tags = image.tag_v2  # type: ignore[attr-defined]  # only TIFF images have it
    if tags.tagtype.get(exif_block.IPTC) == exif_block.LONG:  # as Photoshop writes it; Pillow keeps one number
        return exif_block.raw_value(data, exif_block.IPTC)
    return as_bytes(tags.get(exif_block.IPTC)) or iptc_in_photoshop(as_bytes(tags.get(exif_block.PHOTOSHOP)) or b"")


def iptc_in_photoshop(block: bytes) -> bytes | None:
    """Return the IPTC records among Photoshop image resources."""
    start = 0
    while block[start : start + 4] == b"8BIM" and start + 12 <= len(block):
        (code,) = struct.unpack_from(">H", block, start + 4)
        name_bytes = (block[start + 6] + 2) // 2 * 2
        size_at = start + 6 + name_bytes
        if size_at + 4 > len(block):
            return None
        (size,) = struct.unpack_from(">I", block, size_at)
        if code == IPTC_RESOURCE:
            return block[size_at + 4 : size_at + 4 + size] or None
        start = size_at + 4 + (size + 1) // 2 * 2
    return None


def exif_of_tiff(image: Image.Image, notes: list[str]) -> bytes | None:
    """Make an EXIF block of a TIFF's own tags, among which camera and date stand."""
    try:
        tags = image.getexif()
        for tag in set(tags) - exif_block.DESCRIPTIVE:
            del tags[tag]
        return strip_prefix(tags.tobytes()) if len(tags) else None
    except Exception as error:  # noqa: BLE001  # Pillow raises whatever a damaged tag provokes
        notes.append(f"EXIF dropped: {error}")
        return None


def strip_prefix(exif: Any) -> bytes | None:
    """Return an EXIF block without the marker that JPEG, and some other files, put before it."""
    block = as_bytes(exif)
    while block is not None and block.startswith(b"Exif\x00\x00"):
        block = block[6:]
    return block or None


def as_bytes(value: Any) -> bytes | None:
    """Return bytes for what Pillow gives as bytes or text, None for nothing and anything else."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    return value if isinstance(value, bytes) and value else None


def sound_dpi(dpi: Any) -> tuple[float, float] | None:
    """Return a resolution that can be written again, None for the absent (a TIFF's 1) and the absurd."""
    try:
        across, down = (float(value) for value in dpi)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return (across, down) if 1 < across <= 65535 and 1 < down <= 65535 else None


# Correcting XMP.
