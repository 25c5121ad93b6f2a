"""Read an image's header, choose its reader, and refuse what must not be decoded, without touching its pixels."""

from __future__ import annotations

import time
from functools import lru_cache

from PIL import Image, UnidentifiedImageError

from engine.codec import av1, boxes, deep, jxl, png, tiff
from engine.codec.bounds import CODESTREAM, count_frames, require_bounded
from engine.codec.formats import can_read, format_of
from engine.codec.metadata.exif import DESCRIPTIVE
from engine.codec.metadata.read import of_raw, of_tiff, read_opened
from engine.codec.opening import open_image
from engine.config import DecodeConfig
from engine.errors import SkipImage
from engine.records import Failed, Inspected, Reader, Record
from engine.system.extras import install_hint

_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_JXL_HEADS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \r\n\x87\n")
_SEQUENCE_HEADER_BYTES = 256
_LEAST_FRAME_PIXELS = 1 << 20
_TURNED_BY_PILLOW = ("TIFF", "HEIF", "JXL")
_GRAY_BITS = {"I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}

# Pillow's own guard is one number for the whole process and stops below the default of `max_pixels`; here every
# image is checked against `max_pixels` before its pixels are touched.
Image.MAX_IMAGE_PIXELS = None


def inspect(data: bytes, max_pixels: int) -> Inspected:
    """Read the header of an encoded image.

    Raises:
        SkipImage: The file is empty, no image, in a format whose reader is not installed, or has more than `max_pixels`
            pixels (the guard against decompression bombs).
    """
    if not data:
        raise SkipImage("empty file")
    try:
        return _inspected(data, max_pixels)
    except UnidentifiedImageError:
        raise SkipImage("not an image, or in a format that cannot be read here") from None
    except SkipImage:
        raise
    except Exception as error:  # a plugin may raise anything on hostile bytes
        raise SkipImage(f"header cannot be read: {error}") from error


def _inspected(data: bytes, max_pixels: int) -> Inspected:
    if tiff.is_raw(data):
        return _raw(data, max_pixels)
    _register_plugins(data)
    require_bounded(data)
    data, notes = png.without_bad_chunks(boxes.with_size_of_alpha(data))
    if tiff.is_tiff(data):
        data, notes = _with_photo_first(data)
        tiff.require_bounded(data)
    try:
        with open_image(png.with_text_first(data)) as image:
            width, height = image.size
            if width < 1 or height < 1:
                raise SkipImage("the image has no pixels")
            _check_size(width * height, max_pixels, "in the file")
            if image.format == "AVIF":
                _require_announced_frames(data, width * height)
            depth = _depth(image, data)
            reader = _reader(image, data, depth)
            return Inspected(
                data=data,
                format=image.format or "",
                mode=image.mode,
                width=width,
                height=height,
                metadata=read_opened(
                    image, data, turned_by_decoder=reader == "pillow" and image.format in _TURNED_BY_PILLOW
                ),
                translucent=image.has_transparency_data,
                frames=_num_frames(image, data),
                progressive=bool(image.info.get("progressive")),
                depth=depth,
                inverted_ink="adobe" in image.info,
                reader=reader,
                notes=notes,
            )
    except UnidentifiedImageError:
        if tiff.is_tiff(data):
            return _deep_tiff(data, max_pixels, notes)
        raise


def _with_photo_first(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a TIFF that begins with its photo, and remarks on the thumbnail before it."""
    changed = tiff.with_photo_first(data, DESCRIPTIVE)
    notes = () if changed is data else ("left out: a smaller copy of the photo that the file begins with",)
    return changed, notes


def _require_announced_frames(data: bytes, num_pixels: int) -> None:
    """Raise `SkipImage` for an AVIF whose frames are far larger than its properties announce; all are decoded."""
    for item in boxes.starts_of_items(data, _SEQUENCE_HEADER_BYTES):
        frame = av1.largest_frame(item)
        if frame is not None and frame[0] * frame[1] > max(_LEAST_FRAME_PIXELS, 4 * num_pixels):
            raise SkipImage(f"a frame of {frame[0]}x{frame[1]} in an AVIF that announces {num_pixels:,} pixels")


def _reader(image: Image.Image, data: bytes, depth: int) -> Reader:
    """Choose the reader of an image that Pillow has opened; Pillow where the optional ones are missing."""
    if image.format == "TIFF" and tiff.needs_deep_reader(data):
        if tiff.is_misread_by_pillow(data):
            deep.require()
        return "tiff" if deep.installed() else "pillow"
    if image.format == "PNG" and depth == 16 and deep.installed():
        return "png"
    if image.format == "JPEG2000" and depth > 8:
        if image.mode not in _GRAY_BITS:
            deep.require()
        return "jp2" if deep.installed() else "pillow"
    return "pillow"


def _deep_tiff(data: bytes, max_pixels: int, notes: tuple[str, ...]) -> Inspected:
    """Read the header of a TIFF that Pillow does not open."""
    deep.require()
    width, height, mode, depth, translucent = deep.tiff_header(data)
    _check_size(width * height, max_pixels, "in the file")
    return Inspected(
        data=data,
        format="TIFF",
        mode=mode,
        width=width,
        height=height,
        metadata=of_tiff(data),
        translucent=translucent,
        depth=depth,
        reader="tiff",
        notes=notes,
    )


def _raw(data: bytes, max_pixels: int) -> Inspected:
    raw = format_of("RAW")
    if not can_read(raw):
        raise SkipImage(f"RAW photos need a reader: {install_hint('raw')}")
    width, height = deep.raw_header(data)
    _check_size(width * height, max_pixels, "in the file")
    return Inspected(
        data=data,
        format="RAW",
        mode="RGB",
        width=width,
        height=height,
        metadata=of_raw(data),
        depth=16,
        reader="raw",
    )


def _depth(image: Image.Image, data: bytes) -> int:
    """Return the bits per channel of an image that Pillow has opened; 8 where its format does not tell."""
    if image.format == "JPEG2000":
        at = data.find(CODESTREAM)  # the precision of its first component
        return (data[at + 42] & 0x7F) + 1 if 0 <= at < len(data) - 42 else 8
    if image.mode in _GRAY_BITS:
        return _GRAY_BITS[image.mode]
    if image.format == "JXL":
        return jxl.bits(data)
    if image.format == "PNG":
        return png.bits(data)
    if image.format == "TIFF":
        return tiff.bits(data)
    if image.format == "AVIF":
        at = data.find(b"av1C", 0, 65_536)  # AV1 codec configuration: high_bitdepth and twelve_bit
        flags = data[at + 6] if 0 <= at < len(data) - 6 else 0
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    if image.format == "HEIF":
        at = data.find(b"hvcC", 0, 65_536)  # HEVC decoder configuration: bit_depth_luma_minus8
        return 8 + (data[at + 21] & 7) if 0 <= at < len(data) - 21 else 8
    return 8


def inspect_record(record: Record[bytes], config: DecodeConfig) -> Record[Inspected] | Failed:
    """Read the header of a record's image; `Failed` for one that `inspect` refuses or that is too large to work on."""

    def work(record: Record[bytes]) -> Inspected:
        inspected = inspect(record.payload, config.max_pixels)
        # An image one pixel high grows beyond all bounds when its short side is brought to size.
        width, height = record.options.size.target(inspected.width, inspected.height)
        _check_size(width * height, config.max_pixels, "at working size")
        if width * height > max(inspected.num_pixels, config.max_output_pixels):
            raise SkipImage(
                f"a result of {width}x{height} from {inspected.width}x{inspected.height} is over the limit of "
                f"{config.max_output_pixels / 1e6:,.1f} megapixels (--max-output-pixels raises it)"
            )
        return inspected

    started_s = time.perf_counter()
    outcome = record.attempt("inspect", work)
    outcome.timings["inspect"] = time.perf_counter() - started_s
    return outcome


def _register_plugins(data: bytes) -> None:
    """Register the plugin of Pillow that an image needs; raises `SkipImage` where it is missing."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and data[8:12] not in _AVIF_BRANDS:
        _register("HEIF")
    elif data.startswith(_JXL_HEADS):
        _register("JXL")


@lru_cache(maxsize=2)
def _register(name: str) -> None:
    format = format_of(name)
    if not can_read(format):
        raise SkipImage(f"{name} needs a plugin: {install_hint(format.extra or '')}")
    if name == "HEIF":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    else:
        import pillow_jxl  # noqa: F401  # registers itself


def _num_frames(image: Image.Image, data: bytes) -> int:
    """Count the frames of an animation, no more than `MAX_FRAMES` where counting visits each of them."""
    counted = count_frames(data, image.format or "")
    if counted is not None:
        return counted
    if image.format == "MPO":  # the further frames of a camera's MPO are previews, not an animation
        return 1
    return int(getattr(image, "n_frames", 1)) if getattr(image, "is_animated", False) else 1


def _check_size(num_pixels: int, max_pixels: int, when: str) -> None:
    if num_pixels > max_pixels:
        raise SkipImage(
            f"{num_pixels / 1e6:,.1f} megapixels {when} are over the limit of {max_pixels / 1e6:,.1f} "
            "(--max-pixels raises it)"
        )
