"""Options of one image: working size, detail, output format and quality."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Detail = Literal["none", "plain", "guided"]


NATIVE_PIXELS = 1_000_000
"""Largest photo that size `auto` translates at its native size."""


WORKING_SIDE = 512
"""Short side in pixels at which size `auto` translates larger photos."""


@dataclass(frozen=True, slots=True)
class Size:
    """Working size: the size at which an image is translated. Create it with `Size.parse`."""

    mode: Literal["short", "exact", "native", "auto"] = "short"
    width: int = 256
    """Pixels; for mode `short`, the short side."""
    height: int = 256
    """Pixels; for mode `short`, the short side."""

    @classmethod
    def parse(cls, text: str) -> Size:
        """Parse `256` (short side), `320x200` (width x height, ignoring the aspect ratio), `native` or `auto`.

        `auto` is native up to `NATIVE_PIXELS` and a short side of `WORKING_SIDE` above; see docs/detail.md.

        Raises `ValueError` for anything else and for sides outside 16 to 65,500 pixels.
        """
        if text == "native":
            return cls("native", 0, 0)
        if text == "auto":
            return cls("auto", 0, 0)
        match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
        if match is None:
            raise ValueError(f"size must be a number, WIDTHxHEIGHT, native or auto, got {text!r}")
        width, height = int(match[1]), int(match[2] or match[1])
        if not (16 <= width <= 65_500 and 16 <= height <= 65_500):
            raise ValueError(f"sides must be 16 to 65500 pixels, got {text!r}")
        return cls("short" if match[2] is None else "exact", width, height)

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Return the working (width, height) in pixels of an upright image of `width` x `height`."""
        if self.mode == "native" or (self.mode == "auto" and width * height <= NATIVE_PIXELS):
            return width, height
        if self.mode == "exact":
            return self.width, self.height
        side = self.width or min(WORKING_SIDE, width, height)  # `auto` never enlarges
        scale = side / min(width, height)
        return max(side, round(width * scale)), max(side, round(height * scale))

    def __str__(self) -> str:
        return {
            "native": "native",
            "auto": "auto",
            "short": f"{self.width}",
            "exact": f"{self.width}x{self.height}",
        }[self.mode]


def default_detail(size: Size) -> Detail:
    """Return the detail that a size implies: `auto` brings the result back to the image's own size."""
    return "guided" if size.mode == "auto" else "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of one image; the same for a whole archive, possibly different for each job of a stream."""

    model: str = ""
    """Name of the loaded generator to use."""
    size: Size = field(default_factory=Size)
    """Working size."""
    detail: Detail = "none"
    """How a translation is brought from working size to native size: `none` keeps the working size, `plain`
    interpolates, `guided` restores detail from the photo (see `engine.codec.detail`)."""
    format: str = "keep"
    """Output format: `keep`, or a name from `engine.codec.formats.FORMATS`."""
    quality: int | None = None
    """JPEG, WebP and AVIF quality, 1 to 100; None is the encoder's configured quality."""
    depth: Literal[8, 16] = 8
    """Bits per channel of the result; 16 keeps the depth of images that have more than 8, in PNG and TIFF."""
