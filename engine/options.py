"""What is asked for one image: working size, detail, output format and quality."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

Detail = Literal["none", "plain", "guided"]


NATIVE_PIXELS = 1_000_000
"""Photos up to here are translated at their own size by `auto`."""


WORKING_SIDE = 512
"""Pixels of the short side at which `auto` translates larger ones."""


@dataclass(frozen=True, slots=True)
class Size:
    """The size at which the generator sees an image; made by `Size.parse`."""

    mode: Literal["short", "exact", "native", "auto"] = "short"
    width: int = 256
    """Pixels; for `short` the length of the short side."""
    height: int = 256
    """Pixels; for `short` the length of the short side."""

    @classmethod
    def parse(cls, text: str) -> Size:
        """Read `256` (short side), `320x200` (width x height, aspect ratio given up), `native` or `auto`.

        `auto` is native up to a megapixel, and a short side of 512 above: see docs/detail.md for why.

        Raises `ValueError` on anything else and on sides outside 16 to 65,500 pixels.
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
        """Give (width, height) in pixels for an upright image of `width` x `height`."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked for one image; an archive asks the same of all, a queue job may ask its own."""

    model: str = ""
    """Which of the loaded generators translates it."""
    size: Size = field(default_factory=Size)
    """Working size."""
    detail: Detail = "none"
    """How a translation made at another size than the photo's own is brought back to it: `none` leaves it at working
    size, `plain` interpolates, `guided` takes the photo's own detail (see `engine.codec.detail`)."""
    format: str = "keep"
    """Output format: `keep`, or a name from `engine.codec.encode.FORMATS`."""
    quality: int | None = None
    """JPEG, WebP and AVIF quality, 1 to 100; None is that of the encoder's configuration."""
