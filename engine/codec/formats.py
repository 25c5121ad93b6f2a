"""Which name and format a result gets, from the input's name alone, so that it is known before anything is read."""

from __future__ import annotations

from pathlib import PurePosixPath

FORMATS = {"jpeg": ".jpg", "png": ".png", "webp": ".webp", "tiff": ".tif", "avif": ".avif"}
"""Names for `--format`, and the suffix each gives a file."""


_MAX_SIDE = {"JPEG": 65_535, "WEBP": 16_383, "AVIF": 65_535}
"""Pixels; limits of the formats themselves."""


_BY_SUFFIX = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".avif": "avif",
}

_JPEG_2000 = (".jp2", ".jpx", ".j2k", ".j2c", ".jpc")

_KEPT_AS = dict.fromkeys((".mpo", ".heic", ".heif", *_JPEG_2000), "jpeg")

_ONLY_READ = {".bmp", ".gif", ".tga", ".ppm", ".pgm", ".pnm", ".ico", ".dib", ".pcx", ".sgi"}

IMAGE_SUFFIXES = frozenset(_BY_SUFFIX) | frozenset(_KEPT_AS) | _ONLY_READ
"""Suffixes, in lower case, of the files that a folder or archive is searched for."""


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken from a folder or archive."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def output_name(key: str, asked_format: str) -> tuple[str, str]:
    """Give the result's relative path and its format (a name from `FORMATS`) for the input at `key`.

    With `keep` a suffix that can be written stays as it is; a camera format that cannot becomes JPEG, and any other
    PNG. Otherwise the suffix is replaced, unless it already means the format that was asked for.
    """
    path = PurePosixPath(key)
    suffix = path.suffix.lower()
    format = asked_format
    if asked_format == "keep":
        format = _BY_SUFFIX.get(suffix) or _KEPT_AS.get(suffix, "png")
    if _BY_SUFFIX.get(suffix) == format:
        return key, format
    stem = path if suffix not in IMAGE_SUFFIXES else path.with_suffix("")
    return f"{stem}{FORMATS[format]}", format


def output_format(asked: str, came_in: str) -> str:
    """Name the output format as Pillow does; `keep` keeps what can be written and turns the rest into PNG or JPEG."""
    if asked != "keep":
        return asked.upper()
    kept = {"MPO": "JPEG", "JPEG2000": "JPEG", "HEIF": "JPEG"}.get(came_in, came_in)
    return kept if kept.lower() in FORMATS else "PNG"
