"""Bring a decoded photo of any kind to the 8-bit sRGB that generators know, and back to its own profile.

    colours = from_image(image, icc)            a loaded Pillow image of any mode
    colours = from_pixels(pixels, icc)          RGB pixels from a decoder that ignored the profile
    colours = to_profile(pixels, icc)           sRGB pixels back into a photo's own profile

Conversions are relative colorimetric with black point compensation. Colours that sRGB can show come out as
they were, so that `to_profile` restores them and a photo in a profile close to sRGB hardly changes; a
perceptual table, where a profile has one at all, would move every colour by a rule of its maker's own.

Transforms are cached by profile and shared between threads: LittleCMS keeps nothing in a transform while it
is applied. Large images go through in bands of rows, which bounds the memory for Pillow's 4-byte pixels.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms

from engine.codec import deep
from engine.codec.arrays import Pixels

BAND_PIXELS = 1 << 20
SAME_WITHIN = 1
"""A profile that moves no colour by more than this many of 255 levels counts as sRGB."""
DARK = 64
"""Level of 255 up to which a colour counts as dark."""
SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
"""Pillow's mode for each colour space that a profile may name."""


@dataclass(frozen=True)
class Colours:
    """Pixels in a colour space, between decoder and generator or before the encoder."""

    pixels: Pixels
    """[H, W, 3]."""
    icc: bytes | None = None
    """The profile that describes `pixels`; None means sRGB by convention."""
    alpha: Pixels | None = None
    """[H, W], 255 is opaque; None where everything is."""
    notes: tuple[str, ...] = ()
    """What was assumed or lost, one sentence each."""


@dataclass(frozen=True)
class Conversion:
    """How pixels with a certain profile become sRGB, or the other way round."""

    transform: ImageCms.ImageCmsTransform | None
    """None where pixels stay as they are."""
    icc: bytes | None
    """The profile that describes the result."""
    note: str | None = None


def from_image(image: Image.Image, icc: bytes | None = None) -> Colours:
    """Convert a loaded Pillow image of any mode, with the profile it came with, to sRGB.

    Gray, palette, 1-bit, CMYK, Lab, 16-bit and float images are handled, alpha is taken apart.
    A profile that is broken, or of another colour space, is left out with a note.
    """
    alpha = keyed_alpha(image)
    image, note = to_8_bit(image)
    notes = () if note is None else (note,)
    if alpha is None and image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        gray = image.mode == "LA"
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
        image = image.getchannel("R") if gray else image.convert("RGB")
        alpha = None if alpha.min(initial=255) == 255 else alpha
    if image.mode == "CMYK":
        image = as_ink(image)
    if image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    conversion = to_srgb(icc, image.mode)
    if conversion.transform is None:
        pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    else:
        pixels = apply(conversion.transform, np.asarray(image), image.mode)
    return Colours(pixels, conversion.icc, alpha, notes + noted(conversion))


def from_ink(ink_HWC: Pixels, icc: bytes | None) -> Colours:
    """Convert CMYK, uint8 [H, W, 4] with 255 for full ink, to sRGB, through its profile where it has one."""
    return from_image(Image.fromarray(ink_HWC, "CMYK"), icc)


def srgb_16_bit(values_HWC: NDArray[np.uint16], icc: bytes | None) -> NDArray[np.uint16]:
    """Convert RGB, uint16 [H, W, 3], to sRGB as `from_pixels` does for 8 bits; gray as three equal channels."""
    conversion, mode = conversion_of(icc)
    if conversion.transform is None or icc is None:
        return values_HWC
    source = values_HWC[:, :, 0] if mode == "L" else values_HWC
    compensated = has_black(open_profile(icc), mode)
    return deep.transform(source, icc, srgb_icc(), gray=mode == "L", compensated=compensated)


def to_profile_16_bit(values_HWC: NDArray[np.uint16], icc: bytes) -> NDArray[np.uint16]:
    """Convert sRGB, uint16 [H, W, 3], into an RGB profile as `to_profile` does for 8 bits."""
    if from_srgb(icc).transform is None:
        return values_HWC
    return deep.transform(values_HWC, srgb_icc(), icc, compensated=has_black(open_profile(icc), "RGB"))


def from_pixels(pixels_HWC: Pixels, icc: bytes | None = None, *, overwrite: bool = False) -> Colours:
    """Convert RGB pixels, uint8 [H, W, 3], that a decoder made without looking at the profile, to sRGB.

    Costs nothing where the profile is absent or is sRGB. Pixels of a gray photo may come as three equal
    channels. Not for CMYK, whose profile needs all four channels; see `from_ink`. With `overwrite`, the result is put
    into the memory of `pixels_HWC`.
    """
    conversion, mode = conversion_of(icc)
    if conversion.transform is None:
        return Colours(pixels_HWC, conversion.icc, notes=noted(conversion))
    source = pixels_HWC[:, :, 0] if mode == "L" else pixels_HWC
    result = apply(conversion.transform, source, mode, pixels_HWC if overwrite else None)
    return Colours(result, conversion.icc, notes=noted(conversion))


def conversion_of(icc: bytes | None) -> tuple[Conversion, str]:
    """Return the conversion that `from_pixels` applies for a profile, and the mode of its input: RGB or L."""
    mode = "L" if icc is not None and space_of(icc) == "L" else "RGB"
    return to_srgb(icc, mode), mode


def to_profile(pixels_HWC: Pixels, icc: bytes) -> Colours:
    """Convert sRGB pixels, uint8 [H, W, 3], into an RGB profile; where that fails they stay, with a note."""
    conversion = from_srgb(icc)
    if conversion.transform is None:
        return Colours(pixels_HWC, conversion.icc, notes=noted(conversion))
    return Colours(apply(conversion.transform, pixels_HWC, "RGB"), conversion.icc, notes=noted(conversion))


def flatten(pixels_HWC: Pixels, alpha_HW: Pixels) -> Pixels:
    """Lay a translucent image, uint8 [H, W, 3], on white, for formats that have no alpha."""
    image = Image.new("RGB", pixels_HWC.shape[1::-1], "white")
    image.paste(Image.fromarray(pixels_HWC), mask=Image.fromarray(alpha_HW))
    return np.array(image)


# Profiles.


@lru_cache(maxsize=64)
def to_srgb(icc: bytes | None, mode: str) -> Conversion:
    """Return how pixels of Pillow's `mode` with this profile become sRGB."""
    if icc is None:
        return Conversion(lab_transform() if mode == "LAB" else None, None)
    if mode == "LAB":
        return Conversion(lab_transform(), None)
    space = space_of(icc)
    if space is None:
        return Conversion(None, None, "the colour profile is broken; the photo is taken as sRGB")
    if space != mode and not (mode == "L" and space == "RGB"):
        return Conversion(None, None, f"the colour profile is for {space}, not {mode}; it is left out")
    try:
        transform = build(open_profile(icc), srgb_profile(), space, "RGB")
        if space != "CMYK" and changes_nothing(transform, space):
            return Conversion(None, icc if space == "RGB" else None)
    except (ImageCms.PyCMSError, OSError) as error:
        return Conversion(None, None, f"the colour profile cannot be used ({error}); the photo is taken as sRGB")
    return Conversion(transform, srgb_icc())


@lru_cache(maxsize=64)
def from_srgb(icc: bytes) -> Conversion:
    """Return how sRGB pixels come into an RGB profile."""
    space = space_of(icc)
    if space != "RGB":
        reason = "is broken" if space is None else f"is for {space}, which holds no translated photo"
        return Conversion(None, None, f"the colour profile {reason}; written as sRGB")
    try:
        transform = build(srgb_profile(), open_profile(icc), "RGB", "RGB")
        return Conversion(None if changes_nothing(transform, "RGB") else transform, icc)
    except (ImageCms.PyCMSError, OSError) as error:
        return Conversion(None, srgb_icc(), f"the colour profile cannot be written to ({error}); written as sRGB")


@lru_cache(maxsize=64)
def space_of(icc: bytes) -> str | None:
    """Return Pillow's mode for the colours a profile describes, None where it cannot be read."""
    try:
        return SPACES.get(open_profile(icc).profile.xcolor_space.strip())
    except (ImageCms.PyCMSError, OSError, ValueError):  # the last where the name is no text
        return None


def open_profile(icc: bytes) -> ImageCms.ImageCmsProfile:
    """Parse a profile; raises `OSError` on one that is broken."""
    return ImageCms.ImageCmsProfile(io.BytesIO(icc))


def build(
    source: ImageCms.ImageCmsProfile, target: ImageCms.ImageCmsProfile, source_mode: str, target_mode: str
) -> ImageCms.ImageCmsTransform:
    """Build the relative colorimetric transform, with black point compensation where both profiles have a black."""
    compensated = all(has_black(profile, mode) for profile, mode in ((source, source_mode), (target, target_mode)))
    return ImageCms.buildTransform(
        source,
        target,
        source_mode,
        target_mode,
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION if compensated else ImageCms.Flags.NONE,
    )


def has_black(profile: ImageCms.ImageCmsProfile, mode: str) -> bool:
    """Return whether zero in all channels of an RGB or gray profile is dark, as black point compensation assumes.

    It is not in profiles of YCbCr that go by the name of RGB (sYCC): there it is green, and compensation would turn
    every colour magenta. True for other modes, whose black LittleCMS finds by itself.
    """
    if mode not in ("RGB", "L"):
        return True
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    transform = ImageCms.buildTransform(profile, srgb_profile(), mode, "RGB", intent, ImageCms.Flags.NONE)
    zero = np.zeros((1, 1) if mode == "L" else (1, 1, 3), np.uint8)
    return bool(apply(transform, zero, mode).max() <= DARK)


def changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transform to RGB moves no colour of a grid by more than `SAME_WITHIN` levels.

    Profiles that mean sRGB come under many names and sizes, and profiles named sRGB do not all mean it: what
    they do to colours is the one test that holds.
    """
    levels = np.linspace(0, 255, 18).round().astype(np.uint8)
    if mode == "L":
        grid = levels[None, :]
        expected = np.repeat(grid[..., None], 3, axis=-1)
    else:
        grid = expected = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(18, -1, 3)
    moved = apply(transform, grid, mode).astype(np.int16) - expected
    return bool(np.abs(moved).max() <= SAME_WITHIN)


@lru_cache(maxsize=1)
def srgb_profile() -> ImageCms.ImageCmsProfile:
    """Return LittleCMS's own sRGB profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=1)
def srgb_icc() -> bytes:
    """Return the bytes of an sRGB profile, with a fixed date, so that equal runs write equal files."""
    icc = srgb_profile().tobytes()
    return icc[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + icc[36:]


@lru_cache(maxsize=1)
def lab_transform() -> ImageCms.ImageCmsTransform:
    """Return the transform from CIE Lab with a D50 white, as TIFF has it."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    return build(lab, srgb_profile(), "LAB", "RGB")


@lru_cache(maxsize=1)
def adobe_rgb_icc() -> bytes:
    """Return a profile of the Adobe RGB (1998) colour space, for photos that claim it in EXIF alone.

    ICC version 2, matrix and gamma 563/256, with the primaries of the specification's section 4.3.5 (adapted
    to D50).
    """

    def xyz(*values: float) -> bytes:
        return b"XYZ \x00\x00\x00\x00" + struct.pack(">3i", *(round(value * 65536) for value in values))

    name = b"Adobe RGB (1998) compatible\x00"
    gamma = b"curv\x00\x00\x00\x00" + struct.pack(">IHxx", 1, 563)
    tags = {
        b"desc": b"desc\x00\x00\x00\x00" + struct.pack(">I", len(name)) + name + bytes(78),
        b"cprt": b"text\x00\x00\x00\x00Public domain\x00",
        b"wtpt": xyz(0.95045, 1.0, 1.08905),
        b"rXYZ": xyz(0.60974, 0.31111, 0.01947),
        b"gXYZ": xyz(0.20528, 0.62567, 0.06087),
        b"bXYZ": xyz(0.14919, 0.06322, 0.74457),
        b"rTRC": gamma,
        b"gTRC": gamma,
        b"bTRC": gamma,
    }
    table, values = struct.pack(">I", len(tags)), b""
    values_at = 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        table += tag + struct.pack(">II", values_at + len(values), len(value))
        values += value + bytes(-len(value) % 4)
    size = values_at + len(values)
    header = struct.pack(">I4sI4s4s4s6H4s", size, b"\0" * 4, 0x02100000, b"mntr", b"RGB ", b"XYZ ",
                         2000, 1, 1, 0, 0, 0, b"acsp")  # fmt: skip
    illuminant = struct.pack(">3i", round(0.9642 * 65536), 65536, round(0.8249 * 65536))
    return (header + bytes(28) + illuminant).ljust(128, b"\0") + table + values


# Pixels.


def apply(transform: ImageCms.ImageCmsTransform, source: Pixels, mode: str, out: Pixels | None = None) -> Pixels:
    """Apply a transform to RGB, band by band; `source` is [H, W] or [H, W, C] in Pillow's `mode`.

    The result is [H, W, 3], in `out` where that is given, which may be the memory of `source`.
    """
    height, width = source.shape[:2]
    result = np.empty((height, width, 3), np.uint8) if out is None else out
    for top, bottom in bands(height, width):
        rows = np.ascontiguousarray(source[top:bottom])
        band = Image.frombuffer(mode, (width, bottom - top), rows.tobytes(), "raw", mode, 0, 1)
        result[top:bottom] = np.asarray(transform.apply(band))
    return result


def bands(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Yield half-open ranges of rows that hold about `BAND_PIXELS` pixels each."""
    rows = max(1, BAND_PIXELS // max(width, 1))
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def to_8_bit(image: Image.Image) -> tuple[Image.Image, str | None]:
    """Return a gray image of more than 8 bits as mode L, and a note where its white had to be guessed.

    16 bits are divided by 257, rounded. 32-bit integers and floats say nowhere what white is: 65535 and 1.0
    are taken where no value is larger, else the largest value is.
    """
    if not image.mode.startswith("I") and image.mode != "F":
        return image, None
    values = np.asarray(image).astype(np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    white, note = (1.0 if image.mode == "F" else 65535.0), None
    if values.max(initial=0.0) > white:
        white = float(values.max())
        note = f"brightness scaled: the largest value, {white:g}, is taken as white"
    levels = np.clip(values * (255.0 / white) + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(levels), note


def keyed_alpha(image: Image.Image) -> Pixels | None:
    """Return the alpha of a 16-bit gray image of which one value stands for transparent; None for any other."""
    key = image.info.get("transparency")
    if not image.mode.startswith("I;16") or not isinstance(key, int):
        return None
    return np.where(np.asarray(image) == key, 0, 255).astype(np.uint8)


def as_ink(image: Image.Image) -> Image.Image:
    """Return a CMYK image in which 255 is full ink.

    Pillow takes every CMYK JPEG as inverted, as Adobe's programs write it; without Adobe's marker it is not.
    """
    if image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        return ImageChops.invert(image)
    return image


def noted(conversion: Conversion) -> tuple[str, ...]:
    """Return a conversion's note as a tuple of none or one."""
    return () if conversion.note is None else (conversion.note,)
