"""The image formats: suffixes, what each can hold, and what has to be installed to read it.

`TABLE` is the only place that lists a format's properties. This module imports no decoder, so that naming and listing
files stays cheap.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

EVERY_BLOCK = frozenset({"EXIF", "XMP", "IPTC", "ICC", "dpi"})
"""Kinds of metadata, as remarks name them; `comment` and `texts` come on top where a format has them."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """One image format."""

    name: str
    """As Pillow names it; RAW and JXL are named likewise here."""
    suffixes: tuple[str, ...]
    """In lower case; results are named with the first one."""
    writable: bool = False
    """Results can be written in this format."""
    kept_as: str = "PNG"
    """Format written for `--format keep` where this one cannot be written."""
    max_side: int | None = None
    """Pixels that a side can have at most in this format; None where the limit is out of reach."""
    alpha: bool = True
    """It can hold an alpha channel."""
    depths: tuple[int, ...] = (8,)
    """Bits per channel that results can be written with."""
    carries: frozenset[str] = frozenset()
    """Kinds of metadata that are written into it: those of `EVERY_BLOCK`, `comment` and `texts`."""
    extra: str | None = None
    """Extra of the package that installs its reader; None where Pillow reads it."""
    module: str | None = None
    """Module whose presence shows that the reader is installed."""
    needs_reader: bool = False
    """Leave files with these suffixes out of a listing where the reader is missing, instead of failing them."""

    @property
    def option(self) -> str:
        """Name for `--format`."""
        return self.name.lower()


_RAW_SUFFIXES = (
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf", ".rw2", ".pef"),
    *(".srw", ".3fr", ".iiq", ".rwl", ".erf", ".mrw", ".mef", ".mos", ".kdc", ".dcr", ".x3f", ".raw"),
)

TABLE = (
    Format(
        name="JPEG",
        suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
        writable=True,
        max_side=65_535,
        alpha=False,
        carries=EVERY_BLOCK | {"comment"},
    ),
    Format(
        name="PNG",
        suffixes=(".png", ".apng"),
        writable=True,
        depths=(8, 16),
        carries=EVERY_BLOCK | {"texts"},
    ),
    Format(
        name="WEBP",
        suffixes=(".webp",),
        writable=True,
        max_side=16_383,
        carries=frozenset({"EXIF", "XMP", "ICC"}),
    ),
    Format(
        name="TIFF",
        suffixes=(".tif", ".tiff"),
        writable=True,
        depths=(8, 16),
        carries=EVERY_BLOCK,
    ),
    Format(
        name="AVIF",
        suffixes=(".avif",),
        writable=True,
        max_side=65_535,
        carries=frozenset({"EXIF", "XMP", "ICC"}),
    ),
    Format(name="MPO", suffixes=(".mpo",), kept_as="JPEG"),
    Format(name="JPEG2000", suffixes=(".jp2", ".jpx", ".jpf", ".j2k", ".j2c", ".jpc"), kept_as="JPEG"),
    Format(name="HEIF", suffixes=(".heic", ".heif", ".hif"), kept_as="JPEG", extra="heif", module="pillow_heif"),
    Format(name="JXL", suffixes=(".jxl",), kept_as="JPEG", extra="jxl", module="pillow_jxl"),
    Format(
        name="RAW",
        suffixes=_RAW_SUFFIXES,
        kept_as="JPEG",
        extra="raw",
        module="rawpy",
        needs_reader=True,
    ),
    Format(name="GIF", suffixes=(".gif",)),
    Format(name="BMP", suffixes=(".bmp", ".dib")),
    Format(name="TGA", suffixes=(".tga",)),
    Format(name="PPM", suffixes=(".ppm", ".pgm", ".pnm")),
    Format(name="ICO", suffixes=(".ico",)),
    Format(name="PCX", suffixes=(".pcx",)),
    Format(name="SGI", suffixes=(".sgi",)),
)

_BY_NAME = {format.name: format for format in TABLE}
_BY_SUFFIX = {suffix: format for format in TABLE for suffix in format.suffixes}

FORMATS = {format.option: format.suffixes[0] for format in TABLE if format.writable}
"""Names for `--format`, and the suffix of results in each."""


@lru_cache(maxsize=64)
def is_installed(module: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def can_read(format: Format) -> bool:
    """Return whether the format's reader is installed."""
    return format.module is None or is_installed(format.module)


IMAGE_SUFFIXES = frozenset(
    suffix for suffix, format in _BY_SUFFIX.items() if can_read(format) or not format.needs_reader
)
"""Suffixes, in lower case, of the files that are taken from a folder or archive."""


def is_image_name(name: str) -> bool:
    """Return whether a file of this name is taken from a folder or archive."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def format_of(name: str) -> Format:
    """Return the row of a format by Pillow's name; a format without a row is one that is only read."""
    return _BY_NAME.get(name, Format(name=name, suffixes=()))


def missing_extras() -> Iterator[tuple[str, str]]:
    """Yield what cannot be read here for want of a reader, and the extra that installs it."""
    for format in TABLE:
        if format.extra is not None and not can_read(format):
            yield format.name, format.extra
    if not (is_installed("tifffile") and is_installed("imagecodecs")):
        yield "16 bits per channel", "deep"


def output_format(asked: str, came_in: str) -> str:
    """Return the output format by Pillow's name.

    Args:
        asked: A name from `FORMATS`, or `keep`.
        came_in: Format of the input by Pillow's name. `keep` keeps it where it can be written.
    """
    if asked != "keep":
        return asked.upper()
    format = format_of(came_in)
    return format.name if format.writable else format.kept_as


def output_name(key: str, asked_format: str) -> tuple[str, str]:
    """Return the result's relative path and its format (a name from `FORMATS`) for the input at `key`.

    Both follow from the name alone, so that they are known before the input is read. The suffix stays where it already
    means the output format and is replaced otherwise; `keep` works as in `output_format`.
    """
    path = PurePosixPath(key)
    found = _BY_SUFFIX.get(path.suffix.lower())
    target = format_of(output_format(asked_format, found.name if found is not None else ""))
    if found is target:
        return key, target.option
    stem = path if found is None else path.with_suffix("")
    return f"{stem}{target.suffixes[0]}", target.option
