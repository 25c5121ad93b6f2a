"""What travels through the engine: records, and the payloads that the stages put into them.

    Record[bytes] → Record[Inspected] → Record[DecodedImage] → Batch → Record[DecodedImage]
        → Record[Encoded] → Record[Stored]

A stage turns each record into a record with its own payload, or into `Failed` when this one image is bad. `origin`
travels from the source to the sink and back to the source; no stage between them reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from engine.errors import SkipImage
from engine.options import Options

if TYPE_CHECKING:  # commands that send and count jobs must not wait for torch
    from torch import Tensor

P = TypeVar("P")
Q = TypeVar("Q")

Reader = Literal["pillow", "tiff", "png", "jp2", "raw"]


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a photo says about itself, as raw blocks without container framing."""

    orientation: int = 1
    """1 to 8 as in Exif 3.0: what a decoder of plain pixels still has to apply. See `read`."""
    exif: bytes | None = None
    """The EXIF block, from its TIFF header on."""
    xmp: bytes | None = None
    """The XMP packet, UTF-8."""
    iptc: bytes | None = None
    """IPTC-IIM records."""
    icc: bytes | None = None
    """The colour profile."""
    adobe_rgb: bool = False
    """There is no profile, but the camera says Adobe RGB in EXIF: `colour.adobe_rgb_icc` is the profile."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch, across and down."""
    comment: bytes | None = None
    """The comment of a JPEG or GIF."""
    texts: tuple[tuple[str, str], ...] = ()
    """Keyword and text of the text chunks of a PNG."""
    size: tuple[int, int] | None = None
    """Width and height in pixels that the XMP packet is about; None where there is no packet."""
    notes: tuple[str, ...] = ()
    """What could not be read or carried over, one sentence each, for the user."""


NOTHING = Metadata()

DARK = 8.0
"""Mean level of 255 below which an image may well become black."""
_FIRST_LOOK = 160
"""Pixels of a row that are looked at before all others; NumPy keeps the interpreter's lock for up to 500 values."""


@dataclass(slots=True, kw_only=True)
class Origin:
    """What the source attaches to a record for its sink and for its own `acknowledge`.

    A source that needs more of its own derives from this class.
    """

    output: str = ""
    """Path of the result, relative to the sink's root; empty where the sink chooses the name."""
    modified_ns: int | None = None
    """Time of last change of the input, in nanoseconds since 1970; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """One image that will have no result, and why."""

    key: str
    stage: str
    """Where it failed: read, inspect, decode, generate, encode or store."""
    reason: str
    """One line for a person."""
    origin: Origin = field(default_factory=Origin, repr=False)
    timings: dict[str, float] = field(default_factory=dict, repr=False, compare=False)
    """As in `Record`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Generic[P]):
    """One image on its way, as whatever the last stage made of it."""

    key: str
    """Names the image in its source; unique there."""
    payload: P
    options: Options
    origin: Origin = field(default_factory=Origin, repr=False)
    timings: dict[str, float] = field(default_factory=dict, repr=False, compare=False)
    """Seconds of each stage's call that this image went through, together with its batch."""

    def replace(self, payload: Q) -> Record[Q]:
        """Return a record with the same key, options, origin and timings, and a new payload."""
        return Record(key=self.key, payload=payload, options=self.options, origin=self.origin, timings=self.timings)

    def failed(self, stage: str, reason: object) -> Failed:
        """End this record with a reason; only its first line is kept."""
        line = (str(reason).strip().splitlines() or ["unknown error"])[0]
        return Failed(key=self.key, stage=stage, reason=line, origin=self.origin, timings=self.timings)

    def attempt(self, stage: str, work: Callable[[Record[P]], Q]) -> Record[Q] | Failed:
        """Do `work` on this record; a `SkipImage` it raises becomes a `Failed`."""
        try:
            return self.replace(work(self))
        except SkipImage as error:
            return self.failed(stage, error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """Encoded bytes whose header has been read and found acceptable."""

    data: bytes = field(repr=False)
    format: str
    """As Pillow names it: JPEG, PNG, TIFF, WEBP, …"""
    mode: str
    """As Pillow names it: RGB, L, CMYK, P, I;16, …"""
    width: int
    """Pixels as stored, before the orientation is applied."""
    height: int
    metadata: Metadata = NOTHING
    """What it says about itself: orientation, colour profile, EXIF and more."""
    translucent: bool = False
    """It has an alpha channel, or a colour that stands for transparency."""
    frames: int = 1
    """More than 1 for animations, of which the first frame is translated."""
    progressive: bool = False
    inverted_ink: bool = False
    """In the CMYK of a JPEG, 0 is full ink, as Adobe's programs write it."""
    depth: int = 8
    """Bits per channel."""
    reader: Reader = "pillow"
    """What decodes it: Pillow (or libjpeg-turbo, for JPEGs), or one of the optional readers of `engine.codec.deep`."""
    notes: tuple[str, ...] = ()
    """What was left out to read it at all, one sentence each."""

    @property
    def num_pixels(self) -> int:
        """Pixels of one frame."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright image in memory."""

    pixels_HWC: Tensor
    """uint8 [H, W, 3], RGB, contiguous; between decoder and generator it may be in a GPU's memory."""
    format: str
    """Format it came in, as Pillow names it."""
    notes: tuple[str, ...] = ()
    """What a person should know about how it was read, such as `first of 12 frames`."""
    metadata: Metadata = NOTHING
    """Of the photo it came from, with the profile that `pixels_HWC` had there."""
    icc: bytes | None = None
    """The profile that describes `pixels_HWC` now: sRGB; None is sRGB without saying so."""
    full_HWC: Tensor | None = None
    """uint8, the image at its own size in the same colours, where the translation shall be brought back to it."""
    deep_HWC: Tensor | None = None
    """uint16, 0 to 65535: `full_HWC` where that is there, else `pixels_HWC`, at the depth it was stored with; None
    unless the result shall have 16 bits per channel."""
    depth: int = 8
    """Bits per channel of the file it came from."""
    alpha_HW: Tensor | None = None
    """uint8 [H, W] of `full_HWC` where that is there, else of `pixels_HWC`; 255 is opaque; None where everything is."""
    before_HWC: Tensor | None = None
    """`pixels_HWC` before translation, where detail or a report needs it."""

    def __post_init__(self) -> None:
        shape = tuple(self.pixels_HWC.shape)
        if len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(f"pixels must be [H, W, 3] and not empty, got {shape = }")
        final = shape if self.full_HWC is None else tuple(self.full_HWC.shape)
        if self.alpha_HW is not None and self.alpha_HW.shape != final[:2]:
            raise ValueError(f"alpha must be [H, W] of the pixels {final}, got {tuple(self.alpha_HW.shape)}")
        if self.deep_HWC is not None and tuple(self.deep_HWC.shape) != final:
            raise ValueError(f"deep pixels must have the shape {final}, got {tuple(self.deep_HWC.shape)}")

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.pixels_HWC.shape[0])

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.pixels_HWC.shape[1])

    def translated(self, pixels_HWC: Tensor, *, keep_before: bool = False) -> DecodedImage:
        """Carry everything else with the generator's result, and the old pixels too where something needs them."""
        if _is_black(pixels_HWC) and float(self.pixels_HWC.float().mean()) >= DARK:
            raise SkipImage("the generator's output is black: not finite, or the model does not fit this image")
        needed = keep_before or self.full_HWC is not None or self.deep_HWC is not None
        return changed(self, pixels_HWC=pixels_HWC, before_HWC=self.pixels_HWC.cpu() if needed else None)

    def __repr__(self) -> str:
        return f"DecodedImage({self.width}x{self.height}, {self.format})"


def _is_black(pixels_HWC: Tensor) -> bool:
    # NumPy, because torch would wake its thread pool for a few microseconds of work: on busy cores, milliseconds. For
    # the few pixels of a first look it also keeps the interpreter's lock.
    pixels = pixels_HWC.cpu().numpy()
    return not pixels[len(pixels) // 2, :_FIRST_LOOK].any() and not pixels.any()


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures of one shape for one generator."""

    records: tuple[Record[DecodedImage], ...]
    waited_s: float = 0.0
    """How long the oldest of them waited for the others."""

    def __post_init__(self) -> None:
        kinds = {(r.options.model, r.payload.height, r.payload.width) for r in self.records}
        if len(kinds) != 1:
            raise ValueError(f"a batch holds pictures of one shape for one model, got {kinds}")

    @property
    def model(self) -> str:
        """Name of the generator that translates this batch."""
        return self.records[0].options.model

    def stacked(self) -> Tensor:
        """Put the pictures together, uint8 [N, H, W, 3], on a GPU as soon as one of them is there."""
        import numpy as np
        import torch

        pixels = [record.payload.pixels_HWC for record in self.records]
        device = next((one_HWC.device for one_HWC in pixels if one_HWC.device.type != "cpu"), None)
        if device is None:
            if len(pixels) == 1:
                return pixels[0].contiguous()[None]
            # Plain copies of bytes. NumPy would give up the interpreter's lock for each image and wait to get it back,
            # and torch wake its thread pool, for a few hundred kilobytes.
            stacked_NHWC = np.empty((len(pixels), *pixels[0].shape), np.uint8)
            for image_HWC, one_HWC in zip(stacked_NHWC, pixels, strict=True):
                image_HWC.data.cast("B")[:] = np.ascontiguousarray(one_HWC.numpy()).data.cast("B")
            return torch.from_numpy(stacked_NHWC)
        return torch.stack([one_HWC.to(device) for one_HWC in pixels])


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A translated image as the bytes of a file."""

    data: bytes = field(repr=False)
    format: str
    """As Pillow names it."""
    width: int
    height: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A translated image that would survive a crash."""

    location: str
    """Where it is, relative to the sink's root."""
    num_bytes: int
    width: int
    height: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, encoded: Encoded, location: str) -> Stored:
        """Describe `encoded` once it is at `location`."""
        return cls(
            location=location,
            num_bytes=len(encoded.data),
            width=encoded.width,
            height=encoded.height,
            notes=encoded.notes,
        )


Outcome = Record[Stored] | Failed
