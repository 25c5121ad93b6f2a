"""Decode bytes to upright pixels at working size; one bad image does not affect the others.

Where the generator runs on a GPU, baseline JPEGs are decoded there (`engine.codec.dali`); `jpeg_device` decides. All
other images are decoded on the CPU: JPEGs by libjpeg-turbo (`engine.codec.jpeg`), what Pillow misreads by optional
readers (`engine.codec.deep`), and the rest by Pillow. Data are checked for damage as far as their format allows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageFile, ImagePalette
from torch import Tensor

from engine.codec import deep, jpeg, png, tiff
from engine.codec.arrays import Pixels
from engine.codec.bounds import MAX_FRAMES
from engine.codec.colour import (
    Colours,
    adobe_rgb_icc,
    conversion_of,
    from_image,
    from_ink,
    from_pixels,
    noted,
    srgb_16_bit,
)
from engine.codec.dali import GpuDecoder, Jpeg
from engine.codec.damage import Damaged
from engine.codec.geometry import is_turned, resize_scaled, resize_with_alpha, upright
from engine.codec.opening import open_image
from engine.config import DecodeConfig, PipelineConfig
from engine.errors import EngineError, SkipImage
from engine.records import DecodedImage, Failed, Inspected, Metadata, Record
from engine.system.device import gpu_of
from engine.system.threads import one_thread

Item = Record[Inspected] | Failed
T = TypeVar("T")

DCT_MARGIN = 2
"""A JPEG is decoded at no less than this many times its working size: the rest of the reduction is a resize."""


@dataclass(frozen=True)
class StoredPixels:
    """An image as it is stored: RGB in its own profile, not upright yet."""

    pixels: NDArray[np.uint8]
    """[H, W, 3]."""
    icc: bytes | None
    """The profile that is still to be applied to `pixels`."""
    alpha: NDArray[np.uint8] | None = None
    """[H, W], 255 is opaque; None where everything is."""
    deep: NDArray[np.uint16] | None = None
    """[H, W, 3], `pixels` at 16 bits per channel, where these are wanted."""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, colours: Colours, icc: bytes | None, notes: tuple[str, ...] = ()) -> StoredPixels:
        """Hold colours whose profile is still to be applied."""
        return cls(colours.pixels, icc, colours.alpha, notes=(*colours.notes, *notes))


class Decoder:
    """Decode chunks of inspected images to upright images at their working size.

    Safe to call from several threads at once.
    """

    def __init__(self, config: DecodeConfig, jpegs_on: torch.device | None = None) -> None:
        """`jpegs_on` is the device that baseline JPEGs are decoded on; None leaves them to the CPU like the rest."""
        self._config = config
        self._gpu = None if jpegs_on is None else GpuDecoder(jpegs_on, config.chunk_images)

    def __call__(self, chunk: Sequence[Item]) -> list[Record[DecodedImage] | Failed]:
        """Return the decoded image, or the reason why there is none, for each item in order."""
        with one_thread():
            return self._decoded(chunk)

    def _decoded(self, chunk: Sequence[Item]) -> list[Record[DecodedImage] | Failed]:
        if self._gpu is None:
            return [self._on_cpu(item) for item in chunk]
        wanted = {
            i: jpeg
            for i, item in enumerate(chunk)
            if not isinstance(item, Failed) and (jpeg := _for_gpu(item)) is not None
        }
        with ThreadPoolExecutor(1) as beside:
            decoding = beside.submit(self._gpu, list(wanted.values()))
            # Meanwhile: whatever the GPU does not decode, and the search for damage, which costs most of a core at
            # 4,000 small images a second. The GPU's decoders paint over damage without a word.
            checked = {i: self._checked(chunk[i]) for i in wanted}
            answers = {i: self._on_cpu(item) for i, item in enumerate(chunk) if i not in wanted}
            pixels = dict(zip(wanted, decoding.result(), strict=True))
        answers |= {i: self._finished(chunk[i], checked[i], pixels[i]) for i in wanted}
        return [answers[i] for i in range(len(chunk))]

    def _on_cpu(self, item: Item) -> Record[DecodedImage] | Failed:
        return item if isinstance(item, Failed) else item.attempt("decode", _contained(self._picture))

    def _checked(self, item: Item) -> Record[tuple[str, ...]] | Failed:
        """Return the remarks of `check_jpeg` on an image that the GPU decodes, or why it is refused."""
        if isinstance(item, Failed):
            return item
        if self._config.allow_damaged:
            return item.replace(())
        return item.attempt("decode", _contained(lambda record: check_jpeg(record.payload)))

    def _finished(
        self, item: Item, checked: Record[tuple[str, ...]] | Failed, pixels_HWC: Tensor | None
    ) -> Record[DecodedImage] | Failed:
        """Join what the GPU decoded and what the check found; without pixels, decode on the CPU, which finds why."""
        if isinstance(item, Failed) or pixels_HWC is None:
            return self._on_cpu(item)
        if isinstance(checked, Failed):
            return checked
        return item.attempt("decode", _contained(partial(self._picture_on_gpu, pixels_HWC, checked.payload)))

    def _picture(self, record: Record[Inspected]) -> DecodedImage:
        source = record.payload
        metadata = with_profile(source.metadata)
        least = _least(record)
        stored = self._stored(source, metadata.icc, least, keep_depth=record.options.depth == 16 and source.depth > 8)
        if 0 in stored.pixels.shape:
            raise SkipImage("the image has no pixels")
        stored_HWC = upright(torch.from_numpy(stored.pixels), metadata.orientation)
        size = (stored_HWC.shape[1], stored_HWC.shape[0]) if least is None else _upright_size(source)
        working = record.options.size.target(*size)
        enlarged = record.options.detail != "none" and size != working
        final = size if enlarged else working
        alpha_HW = None if stored.alpha is None else upright(torch.from_numpy(stored.alpha), metadata.orientation)
        # The profile is applied to no more pixels than are needed, which may be a hundredth of what was stored.
        final_HWC, final_alpha_HW = resize_with_alpha(stored_HWC, alpha_HW, *final)
        icc, deep_stored, stored_notes = stored.icc, stored.deep, stored.notes
        del stored, stored_HWC  # where a photo was turned or resized, its pixels are in memory twice until here
        colours = from_pixels(final_HWC.numpy(), icc, overwrite=True)
        pixels_HWC = torch.from_numpy(colours.pixels)
        deep_HWC = None
        if deep_stored is not None:
            deep_HWC = upright(torch.from_numpy(deep_stored), metadata.orientation)
            deep_HWC = resize_with_alpha(deep_HWC, alpha_HW, *final)[0]
            deep_HWC = torch.from_numpy(srgb_16_bit(deep_HWC.numpy(), icc))
        more = " or more" if source.frames >= MAX_FRAMES else ""
        frames = (f"first of {source.frames}{more} frames",) if source.frames > 1 else ()
        return DecodedImage(
            resize_with_alpha(pixels_HWC, final_alpha_HW, *working)[0],
            source.format,
            notes=(*source.notes, *stored_notes, *colours.notes, *frames),
            metadata=metadata,
            icc=colours.icc,
            full_HWC=pixels_HWC if enlarged else None,
            alpha_HW=final_alpha_HW,
            deep_HWC=deep_HWC,
            depth=source.depth,
        )

    def _stored(
        self, source: Inspected, icc: bytes | None, least: tuple[int, int] | None, *, keep_depth: bool
    ) -> StoredPixels:
        """Check for damage and decode; raises `SkipImage` with the reason where either fails."""
        if source.reader != "pillow":
            return _deep(source, icc, keep_depth=keep_depth)
        notes: tuple[str, ...] = ()
        try:
            if jpeg.is_jpeg(source):
                return self._jpeg(source, icc, least)
            if source.format == "PNG":
                notes = png.check(source.data)
            elif source.format == "TIFF":
                tiff.check(source.data)
        except Damaged as error:
            if not self._config.allow_damaged:
                raise
            notes = (_translated_all_the_same(error),)
        return _by_pillow(source, icc, notes)

    def _jpeg(self, source: Inspected, icc: bytes | None, least: tuple[int, int] | None) -> StoredPixels:
        """Decode with libjpeg-turbo, to working size where no more pixels are needed.

        The profile of a CMYK image is applied here, while its four channels exist.
        """
        pixels, notes = self._decoded_jpeg(source, least)
        stored = StoredPixels(pixels, icc, notes=notes)
        if source.mode == "CMYK":
            stored = StoredPixels.of(from_ink(255 - pixels if source.inverted_ink else pixels, icc), None, notes)
        if least is None:
            return stored
        height, width = (side // DCT_MARGIN for side in least)
        whole = (source.height, source.width)
        return replace(stored, pixels=resize_scaled(torch.from_numpy(stored.pixels), width, height, whole).numpy())

    def _decoded_jpeg(self, source: Inspected, least: tuple[int, int] | None) -> tuple[Pixels, tuple[str, ...]]:
        wanted = jpeg.LIBJPEG_COLOURS[source.mode]
        try:
            pixels, notes = jpeg.decode(source.data, wanted, least=least)
        except Damaged as error:
            if not self._config.allow_damaged:
                raise
            pixels = jpeg.decode_damaged(source.data, wanted, least=least)
            notes = (_translated_all_the_same(error),)
        return pixels, notes

    def _picture_on_gpu(self, pixels_HWC: Tensor, notes: tuple[str, ...], record: Record[Inspected]) -> DecodedImage:
        """Finish what the GPU decoded; an image whose colours must be converted comes to the CPU for that."""
        source = record.payload
        metadata = with_profile(source.metadata)
        upright_HWC = upright(pixels_HWC, metadata.orientation).contiguous()
        if upright_HWC is not pixels_HWC and pixels_HWC.device.type == "cuda":
            # DALI reuses released memory without waiting for PyTorch's stream, which may still read it.
            torch.cuda.current_stream(pixels_HWC.device).synchronize()
        conversion, _ = conversion_of(metadata.icc)
        if conversion.transform is not None:
            colours = from_pixels(upright_HWC.cpu().numpy(), metadata.icc)
            upright_HWC = torch.from_numpy(colours.pixels)
        notes = (*source.notes, *notes, *noted(conversion))
        return DecodedImage(upright_HWC, source.format, notes=notes, metadata=metadata, icc=conversion.icc)


def _contained(work: Callable[[Record[Inspected]], T]) -> Callable[[Record[Inspected]], T]:
    """Return `work` with any error that hostile bytes may cause as a `SkipImage`, so that they cost one image."""

    def contained(record: Record[Inspected]) -> T:
        try:
            return work(record)
        except EngineError:
            raise
        except Exception as error:
            raise SkipImage(f"cannot be decoded: {str(error) or type(error).__name__}") from error

    return contained


def jpeg_device(config: PipelineConfig) -> torch.device | None:
    """Return the device that decodes baseline JPEGs: the generator's where that is a GPU; None is the CPU.

    Raises `SetupError` as `gpu_of` does.
    """
    return None if config.decode.jpegs == "cpu" else gpu_of(config.generate.device)


def check_jpeg(source: Inspected) -> tuple[str, ...]:
    """Check a JPEG that something else decodes; returns remarks, raises `SkipImage` where it is damaged.

    Decodes gray at an eighth of the size, which costs little more than reading the entropy-coded data.
    """
    return jpeg.decode(source.data, "GRAY", least=(1, 1))[1]


def with_profile(metadata: Metadata) -> Metadata:
    """Add the Adobe RGB profile to the metadata of an image that claims it in EXIF alone."""
    return replace(metadata, icc=adobe_rgb_icc()) if metadata.adobe_rgb else metadata


def _upright_size(source: Inspected) -> tuple[int, int]:
    turned = is_turned(source.metadata.orientation)
    return (source.height, source.width) if turned else (source.width, source.height)


def _least(record: Record[Inspected]) -> tuple[int, int] | None:
    """Return the height and width, as stored, that a JPEG must be decoded at; None where all pixels are needed."""
    source = record.payload
    own = _upright_size(source)
    width, height = record.options.size.target(*own)
    if not jpeg.is_jpeg(source) or (record.options.detail != "none" and (width, height) != own):
        return None
    if is_turned(source.metadata.orientation):
        width, height = height, width
    least = (DCT_MARGIN * height, DCT_MARGIN * width)
    return least if least[0] < source.height and least[1] < source.width else None


def _for_gpu(record: Record[Inspected]) -> Jpeg | None:
    """Return what the GPU is to make of an image; None for what the CPU decodes.

    Where detail is brought back, the CPU needs the image at its own size, so it decodes it, too.
    """
    source = record.payload
    if not jpeg.is_baseline(source):
        return None
    own = _upright_size(source)
    width, height = record.options.size.target(*own)
    if record.options.detail != "none" and (width, height) != own:
        return None
    turned = is_turned(source.metadata.orientation)
    return Jpeg(source.data, *((width, height) if turned else (height, width)))


def _translated_all_the_same(error: Damaged) -> str:
    return f"damaged: {error.reason}; translated all the same"


def _by_pillow(source: Inspected, icc: bytes | None, notes: tuple[str, ...]) -> StoredPixels:
    """Decode with Pillow; CMYK and Lab go through their profile at once, whose channels RGB has no more.

    Raises `SkipImage` with Pillow's reason.
    """
    at_once = source.mode in ("CMYK", "LAB")
    try:
        with open_image(source.data) as image:
            image.load()
            palette = tiff.old_palette(source.data) if source.format == "TIFF" and image.mode == "P" else None
            if palette is not None:
                image.palette = ImagePalette.ImagePalette("RGB", palette)
                image.putpalette(palette)
            colours = from_image(image, icc if at_once else None)
    except Exception as error:  # a plugin may raise anything on hostile bytes
        raise SkipImage(f"cannot be decoded: {error}") from error
    return StoredPixels.of(colours, None if at_once else icc, notes)


def _deep(source: Inspected, icc: bytes | None, *, keep_depth: bool) -> StoredPixels:
    """Decode with the optional reader that the header was assigned to; raises `SkipImage` where that fails."""
    readers = {
        "tiff": lambda: deep.read_tiff(source.data),
        "png": lambda: deep.read_png(source.data),
        "jp2": lambda: deep.read_jp2(source.data, source.depth),
        "raw": lambda: deep.read_raw(source.data),
    }
    samples = readers[source.reader]()
    values, alpha = deep.to_16_bit(samples)
    levels = deep.to_8_bit(values)
    shown = None if alpha is None or alpha.min(initial=65535) == 65535 else deep.to_8_bit(alpha)
    if samples.kind == "CMYK":
        colours = from_ink(levels, icc)
        return StoredPixels.of(replace(colours, alpha=shown), None, samples.notes)
    gray = samples.kind == "L"
    pixels = np.repeat(levels, 3, axis=2) if gray else levels
    kept = (np.repeat(values, 3, axis=2) if gray else values) if keep_depth else None
    return StoredPixels(pixels, icc, shown, kept, samples.notes)


assert not ImageFile.LOAD_TRUNCATED_IMAGES, "a truncated image must fail, not be padded with gray"
