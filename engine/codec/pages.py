"""Count the pages of an encoded image, and cut one out as an image of its own."""

from __future__ import annotations

import io
import struct
from typing import NamedTuple

from PIL import ImageFile, ImageSequence

from engine.codec.opening import open_image
from engine.errors import SkipImage


def num_pages(data: bytes) -> int:
    """Return the number of pages of a TIFF or frames of an animation; 1 for anything else, damaged files included."""
    if layout := _tiff_layout(data):
        return max(1, len(_directories(data, layout)))
    try:
        with open_image(data) as image:
            return int(getattr(image, "n_frames", 1)) if image.format != "MPO" else 1
    except Exception:  # noqa: BLE001 (a plugin may raise anything; reading the image gives the reason)
        return 1


def single_page(data: bytes, page: int) -> bytes:
    """Return page `page`, from 0, as a file with one page; raise `SkipImage` when there is no such page.

    A page of a TIFF is the same file with only this directory in its list, metadata included. A frame of an animation
    is a PNG of what is shown at that time, with the profile and EXIF of the whole.
    """
    if layout := _tiff_layout(data):
        directories = _directories(data, layout)
        if page >= len(directories):
            raise SkipImage(f"has no page {page + 1}")
        whole = bytearray(data)
        offset, next_at = directories[page]
        struct.pack_into(layout.offset, whole, layout.first_at, offset)
        struct.pack_into(layout.offset, whole, next_at, 0)
        return bytes(whole)
    try:
        with open_image(data) as image:
            frame = ImageSequence.Iterator(image)[page]
            kept = {name: image.info[name] for name in ("icc_profile", "exif") if image.info.get(name)}
            out = io.BytesIO()
            (frame if frame.mode in ("RGB", "RGBA", "L", "LA") else frame.convert("RGBA")).save(out, "PNG", **kept)
            return out.getvalue()
    except IndexError:
        raise SkipImage(f"has no frame {page + 1}") from None
    except Exception as error:  # a plugin may raise anything on hostile bytes
        raise SkipImage(f"frame {page + 1} cannot be decoded: {error}") from error


class _Layout(NamedTuple):
    """Field formats of a classic TIFF or a BigTIFF."""

    offset: str
    entries: str
    first_at: int
    entry_bytes: int


def _tiff_layout(data: bytes) -> _Layout | None:
    if data[:4] in (b"II*\0", b"MM\0*"):
        order = "<" if data[:1] == b"I" else ">"
        return _Layout(f"{order}I", f"{order}H", 4, 12)
    if data[:4] in (b"II+\0", b"MM\0+"):
        order = "<" if data[:1] == b"I" else ">"
        return _Layout(f"{order}Q", f"{order}Q", 8, 20)
    return None


def _directories(data: bytes, layout: _Layout) -> list[tuple[int, int]]:
    """Return (offset, position of the next offset) of each directory, up to the first that is damaged."""
    found: list[tuple[int, int]] = []
    seen: set[int] = set()
    try:
        (offset,) = struct.unpack_from(layout.offset, data, layout.first_at)
        while offset and offset not in seen:
            seen.add(offset)
            (entries,) = struct.unpack_from(layout.entries, data, offset)
            next_at = offset + struct.calcsize(layout.entries) + entries * layout.entry_bytes
            (following,) = struct.unpack_from(layout.offset, data, next_at)
            found.append((offset, next_at))
            offset = following
    except struct.error:
        pass
    return found


assert not ImageFile.LOAD_TRUNCATED_IMAGES, "a truncated frame must fail, not be padded with gray"
