"""Bytes to pixels: DALI for what it reads fast, Pillow for the rest, each image on its own when one is bad."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import simplejpeg
import torch
import torch.nn.functional as F
from PIL import Image, ImageFile
from torch import Tensor

from engine.colour import Colours, adobe_rgb_icc, from_image, from_pixels
from engine.config import DecodeConfig
from engine.errors import SkipImage
from engine.metadata import Metadata
from engine.records import Failed, Inspected, Picture, Record

Item = Record[Inspected] | Failed

# What DALI's CPU decoder was seen to read just as Pillow does. The rest (palettes, alpha, 16 bits, CMYK, TIFF with
# its many layouts, GIF, AVIF, JPEG 2000, HEIC) takes the slower way.
_DALI_READS = {("JPEG", "RGB"), ("JPEG", "L"), ("MPO", "RGB"), ("PNG", "RGB"), ("PNG", "L"), ("WEBP", "RGB")}

# EXIF orientation to (swap rows and columns first, then flip these axes of [H, W, 3]).
_UPRIGHT: dict[int, tuple[bool, tuple[int, ...]]] = {
    1: (False, ()),
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


class Decoder:
    """Decode chunks of inspected images to upright pictures at their working size.

    Safe to call from several threads at once; each thread keeps its own DALI pipeline.
    """

    def __init__(self, config: DecodeConfig) -> None:
        self._config = config
        self._local = threading.local()

    def __call__(self, chunk: Sequence[Item]) -> list[Record[Picture] | Failed]:
        """Answer each item of `chunk`, in order, with its picture or with why there is none."""
        decoded = self._dali_pixels(chunk)
        return [
            item if isinstance(item, Failed) else item.attempt("decode", partial(self._picture, pixels))
            for item, pixels in zip(chunk, decoded, strict=True)
        ]

    def _dali_pixels(self, chunk: Sequence[Item]) -> list[Colours | None]:
        """Decode all that DALI reads in one call; None at the positions left to Pillow."""
        pixels: list[Colours | None] = [None] * len(chunk)
        images = {
            i: item.payload.data
            for i, item in enumerate(chunk)
            if not isinstance(item, Failed) and _dali_reads(item.payload)
        }
        if images:
            for i, decoded in zip(images, self._isolated(list(images.values())), strict=True):
                pixels[i] = decoded
        return pixels

    def _isolated(self, images: list[bytes]) -> Sequence[Colours | None]:
        """Decode with DALI; one bad image fails its whole batch, by design, so ask again one by one.

        What DALI refuses even alone is left to Pillow, which reads a little more and says what is wrong.
        """
        try:
            return self._dali().decode(images)
        except RuntimeError:
            self._local.dali = None  # DALI may call a pipeline unusable after an error; a new one takes 5 ms
            return [None] if len(images) == 1 else [self._isolated([image])[0] for image in images]

    def _dali(self) -> _DaliDecoder:
        if getattr(self._local, "dali", None) is None:
            self._local.dali = _DaliDecoder(self._config.chunk_images)
        return self._local.dali  # type: ignore[no-any-return]

    def _picture(self, decoded: Colours | None, record: Record[Inspected]) -> Picture:
        source = record.payload
        if not self._config.allow_damaged:
            check_jpeg(source)
        metadata = with_profile(source.metadata)
        stored, icc = _pillow_colours(source, metadata.icc) if decoded is None else (decoded, metadata.icc)
        stored_HWC = upright(torch.from_numpy(stored.pixels), metadata.orientation)
        working = record.options.size.target(stored_HWC.shape[1], stored_HWC.shape[0])
        enlarged = record.options.detail != "none" and stored_HWC.shape[:2] != working[::-1]
        final = (stored_HWC.shape[1], stored_HWC.shape[0]) if enlarged else working
        # The profile is applied to no more pixels than are needed, which may be a hundredth of what was stored.
        colours = from_pixels(resize(stored_HWC, *final).numpy(), icc)
        pixels_HWC = torch.from_numpy(colours.pixels)
        alpha_HW = None
        if stored.alpha is not None:
            alpha_HW = resize(upright(torch.from_numpy(stored.alpha)[..., None], metadata.orientation), *final)[..., 0]
        frames = (f"first of {source.frames} frames",) if source.frames > 1 else ()
        return Picture(
            resize(pixels_HWC, *working),
            source.format,
            notes=(*frames, *stored.notes, *colours.notes),
            metadata=metadata,
            icc=colours.icc or stored.icc,
            full_HWC=pixels_HWC if enlarged else None,
            alpha_HW=alpha_HW,
        )


class _DaliDecoder:
    """A DALI pipeline on the CPU that decodes up to `max_images` images a call."""

    def __init__(self, max_images: int) -> None:
        from nvidia.dali import fn, pipeline_def, types  # takes a second to import: only where it decodes

        @pipeline_def(batch_size=max_images, num_threads=1, device_id=None, prefetch_queue_depth=1)  # type: ignore[untyped-decorator]
        def decode() -> object:
            encoded = fn.external_source(name="encoded", device="cpu", batch=True, no_copy=True)
            # Orientation is applied by `upright`, the same way for every format.
            return fn.decoders.image(encoded, device="cpu", output_type=types.RGB, adjust_orientation=False)

        self._pipeline = decode()
        self._pipeline.build()

    def decode(self, images: Sequence[bytes]) -> list[Colours]:
        """Decode to uint8 [H, W, 3] each; raises `RuntimeError` when any of them is bad."""
        self._pipeline.feed_input("encoded", [np.frombuffer(data, np.uint8) for data in images])
        (decoded,) = self._pipeline.run()
        # Copied, because the pipeline reuses its memory in the next call.
        return [Colours(np.array(decoded.at(i))) for i in range(len(images))]


def check_jpeg(source: Inspected) -> None:
    """Raise `SkipImage` when the data of a baseline JPEG contradict themselves.

    Decoders paint over damaged data with a line in a log; here an eighth of the size is decoded once more, strictly.
    Damage that happens to make another valid stream cannot be seen by anyone.
    """
    if source.format != "JPEG" or source.progressive or source.mode not in ("RGB", "L"):
        return
    try:
        simplejpeg.decode_jpeg(source.data, "GRAY", min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        raise SkipImage(f"damaged: {error} (--allow-damaged translates it all the same)") from None


def with_profile(metadata: Metadata) -> Metadata:
    """Give a photo that claims Adobe RGB in EXIF alone the profile it means."""
    return replace(metadata, icc=adobe_rgb_icc()) if metadata.adobe_rgb else metadata


def upright(pixels_HWC: Tensor, orientation: int) -> Tensor:
    """Turn and mirror uint8 [H, W, C] as EXIF `orientation` (1 to 8) asks."""
    swap, axes = _UPRIGHT[orientation]
    pixels = pixels_HWC.transpose(0, 1) if swap else pixels_HWC
    return pixels.flip(axes) if axes else pixels


def resize(pixels_HWC: Tensor, width: int, height: int) -> Tensor:
    """Resample uint8 [H, W, C] to [height, width, C], bicubic and antialiased.

    Equals Pillow's BICUBIC within one step of 255, but for a few values next to steep edges, and is about eight times
    as fast on a CPU.
    """
    if pixels_HWC.shape[:2] == (height, width):
        return pixels_HWC.contiguous()
    planes = pixels_HWC.permute(2, 0, 1)[None]
    resized = F.interpolate(planes, (height, width), mode="bicubic", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous()


def _dali_reads(source: Inspected) -> bool:
    return (source.format, source.mode) in _DALI_READS and not source.translucent


def _pillow_colours(source: Inspected, icc: bytes | None) -> tuple[Colours, bytes | None]:
    """Decode with Pillow; gives RGB and the profile that is still to be applied to it.

    CMYK and Lab go through their profile at once: it speaks of channels that RGB has no more. Raises `SkipImage`
    with Pillow's reason.
    """
    at_once = source.mode in ("CMYK", "LAB")
    try:
        with Image.open(io.BytesIO(source.data)) as image:
            image.load()
            return from_image(image, icc if at_once else None), None if at_once else icc
    except Exception as error:  # a plugin may raise anything on hostile bytes
        raise SkipImage(f"cannot be decoded: {error}") from error


assert not ImageFile.LOAD_TRUNCATED_IMAGES, "a truncated image must fail, not be padded with gray"
