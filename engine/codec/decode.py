"""Bytes to pixels: DALI for what it reads fast, Pillow for the rest, each image on its own when one is bad.

Where the generator runs on a GPU, baseline JPEGs are decoded there (`engine.codec.dali`); `jpeg_device` decides. On a
CPU they go to libjpeg-turbo without a detour through DALI, which uses it too: the same pixels in a third of the time,
and in its strict mode damage shows in the same pass.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Container, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torch import Tensor

from engine.codec.colour import Colours, adobe_rgb_icc, conversion_of, from_image, from_pixels, noted
from engine.codec.dali import GpuDecoder, Jpeg, _DaliDecoder, takes
from engine.codec.geometry import _UPRIGHT, resize, upright
from engine.config import DecodeConfig, PipelineConfig
from engine.errors import SkipImage
from engine.records import Failed, Inspected, Metadata, Picture, Record
from engine.system.device import gpu_of

Item = Record[Inspected] | Failed

# What DALI's CPU decoder was seen to read just as Pillow does. The rest (palettes, alpha, 16 bits, CMYK, TIFF with
# its many layouts, GIF, AVIF, JPEG 2000, HEIC) takes the slower way.
_DALI_READS = {("JPEG", "RGB"), ("JPEG", "L"), ("MPO", "RGB"), ("PNG", "RGB"), ("PNG", "L"), ("WEBP", "RGB")}


class Decoder:
    """Decode chunks of inspected images to upright pictures at their working size.

    Safe to call from several threads at once; each thread keeps its own DALI pipeline.
    """

    def __init__(self, config: DecodeConfig, jpegs_on: torch.device | None = None) -> None:
        """`jpegs_on` is the device that baseline JPEGs are decoded on; None leaves them to the CPU like the rest."""
        self._config = config
        self._local = threading.local()
        self._gpu = None if jpegs_on is None else GpuDecoder(jpegs_on, config.chunk_images)

    def __call__(self, chunk: Sequence[Item]) -> list[Record[Picture] | Failed]:
        """Answer each item of `chunk`, in order, with its picture or with why there is none."""
        on_gpu = self._gpu_pixels(chunk)
        decoded = self._dali_pixels(chunk, without=on_gpu)
        answers: list[Record[Picture] | Failed] = []
        for i, item in enumerate(chunk):
            if isinstance(item, Failed):
                answers.append(item)
            elif i in on_gpu:
                answers.append(item.attempt("decode", partial(self._picture_on_gpu, on_gpu[i])))
            else:
                answers.append(item.attempt("decode", partial(self._picture, decoded[i])))
        return answers

    def _gpu_pixels(self, chunk: Sequence[Item]) -> dict[int, Tensor]:
        """Decode on the GPU what it takes: uint8 [H, W, 3] at working size, not upright yet, by position."""
        if self._gpu is None:
            return {}
        jpegs = {
            i: jpeg
            for i, item in enumerate(chunk)
            if not isinstance(item, Failed) and (jpeg := _for_gpu(item)) is not None
        }
        decoded = zip(jpegs, self._gpu(list(jpegs.values())), strict=True)
        return {i: pixels_HWC for i, pixels_HWC in decoded if pixels_HWC is not None}

    def _dali_pixels(self, chunk: Sequence[Item], without: Container[int]) -> list[Colours | None]:
        """Decode all that DALI reads in one call; None at the positions left to Pillow."""
        pixels: list[Colours | None] = [None] * len(chunk)
        images = {
            i: item.payload.data
            for i, item in enumerate(chunk)
            if i not in without and not isinstance(item, Failed) and self._for_dali(item.payload)
        }
        if images:
            for i, decoded in zip(images, self._isolated(list(images.values())), strict=True):
                pixels[i] = decoded
        return pixels

    def _for_dali(self, source: Inspected) -> bool:
        return _dali_reads(source) and (self._config.allow_damaged or not is_baseline(source))

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
        metadata = with_profile(source.metadata)
        stored, icc = self._stored(source, metadata.icc) if decoded is None else (decoded, metadata.icc)
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

    def _stored(self, source: Inspected, icc: bytes | None) -> tuple[Colours, bytes | None]:
        """Decode what DALI does not; gives RGB and the profile that is still to be applied to it."""
        if is_baseline(source) and not self._config.allow_damaged:
            return Colours(decode_strictly(source.data, "RGB")), icc
        return _pillow_colours(source, icc)

    def _picture_on_gpu(self, pixels_HWC: Tensor, record: Record[Inspected]) -> Picture:
        """Finish what the GPU decoded; a photo whose colours must be converted comes to the CPU for that."""
        source = record.payload
        if not self._config.allow_damaged:
            check_jpeg(source)
        metadata = with_profile(source.metadata)
        upright_HWC = upright(pixels_HWC, metadata.orientation).contiguous()
        if upright_HWC is not pixels_HWC and pixels_HWC.device.type == "cuda":
            # DALI decodes into memory that nobody holds any more without waiting for PyTorch, which may still read it.
            torch.cuda.current_stream(pixels_HWC.device).synchronize()
        conversion, _ = conversion_of(metadata.icc)
        if conversion.transform is not None:
            colours = from_pixels(upright_HWC.cpu().numpy(), metadata.icc)
            upright_HWC = torch.from_numpy(colours.pixels)
        return Picture(upright_HWC, source.format, notes=noted(conversion), metadata=metadata, icc=conversion.icc)


def jpeg_device(config: PipelineConfig) -> torch.device | None:
    """Give the device that decodes baseline JPEGs: the generator's where that is a GPU; None is the CPU.

    Raises `SetupError` as `gpu_of` does.
    """
    return None if config.decode.jpegs == "cpu" else gpu_of(config.generate.device)


def is_baseline(source: Inspected) -> bool:
    """Whether it is a JPEG of one pass over gray or YCbCr: what libjpeg-turbo can check while it decodes."""
    return source.format == "JPEG" and not source.progressive and source.mode in ("RGB", "L")


def decode_strictly(data: bytes, colours: Literal["RGB", "GRAY"], *, eighth: bool = False) -> NDArray[np.uint8]:
    """Decode a baseline JPEG to uint8 [H, W, C]; with `eighth` at an eighth of its size, which is faster.

    Raises `SkipImage` when its data contradict themselves. Other decoders paint over damaged data with a line in a log.
    Damage that happens to make another valid stream cannot be seen by anyone.
    """
    smaller = {"min_height": 1, "min_width": 1, "min_factor": 8} if eighth else {}
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, strict=True, **smaller)
    except ValueError as error:
        raise SkipImage(f"damaged: {error} (--allow-damaged translates it all the same)") from None
    return pixels


def check_jpeg(source: Inspected) -> None:
    """Raise `SkipImage` for a damaged baseline JPEG that something else decodes."""
    if is_baseline(source):
        decode_strictly(source.data, "GRAY", eighth=True)


def with_profile(metadata: Metadata) -> Metadata:
    """Give a photo that claims Adobe RGB in EXIF alone the profile it means."""
    return replace(metadata, icc=adobe_rgb_icc()) if metadata.adobe_rgb else metadata


def _for_gpu(record: Record[Inspected]) -> Jpeg | None:
    """Say what the GPU shall make of an image; None for what the CPU decodes.

    Where detail is brought back, the CPU needs the photo at its own size, so it decodes it, too.
    """
    source = record.payload
    if not takes(source):
        return None
    turned = _UPRIGHT[source.metadata.orientation][0]
    own = (source.height, source.width) if turned else (source.width, source.height)
    width, height = record.options.size.target(*own)
    if record.options.detail != "none" and (width, height) != own:
        return None
    return Jpeg(source.data, *((width, height) if turned else (height, width)))


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
