"""Encode pixels as the bytes of a file.

Large JPEGs may be encoded on the generator's GPU (`engine.codec.nvimgcodec`); `encode_device` decides.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from engine.codec import deep, jpeg, png
from engine.codec.colour import Colours, flatten, to_profile, to_profile_16_bit
from engine.codec.formats import Format, format_of, output_format
from engine.codec.metadata.correct import for_output
from engine.codec.metadata.write import into_encoded, save_arguments
from engine.codec.nvimgcodec import GpuEncoder
from engine.config import EncodeConfig, PipelineConfig
from engine.errors import SkipImage
from engine.records import DecodedImage, Encoded, Failed, Metadata, Record
from engine.system.device import gpu_of


class Encoder:
    """Encode translated images; safe to call from several threads at once."""

    def __init__(self, config: EncodeConfig, device: torch.device | None = None) -> None:
        """`device` encodes JPEGs of at least `config.gpu_from_pixels`; None leaves them to the CPU like the rest."""
        self._config = config
        self._gpu = None if device is None else GpuEncoder(device)

    def __call__(self, records: list[Record[DecodedImage] | Failed]) -> list[Record[Encoded] | Failed]:
        """Return the file's bytes, or the reason why there are none, for each record in order."""
        return [r if isinstance(r, Failed) else r.attempt("encode", self._encode) for r in records]

    def _encode(self, record: Record[DecodedImage]) -> Encoded:
        picture = record.payload
        target = format_of(output_format(record.options.format, picture.format))
        if target.max_side is not None and max(picture.width, picture.height) > target.max_side:
            raise SkipImage(
                f"{target.name} cannot hold {picture.width}x{picture.height} pixels; use --format png or tiff"
            )
        colours = self._colours(picture, target)
        metadata = self._metadata(picture, colours)
        quality = record.options.quality or self._config.quality
        data = self._data(picture, colours, metadata, target, quality)
        data, lost = into_encoded(data, metadata, target.name)
        return Encoded(
            data=data,
            format=target.name,
            width=picture.width,
            height=picture.height,
            notes=(
                *picture.notes,
                *colours.notes,
                *metadata.notes,
                *lost,
                *_reduced(picture, target, record.options.depth),
            ),
        )

    def _colours(self, picture: DecodedImage, target: Format) -> Colours:
        """Return the pixels as they are written: in the profile that was asked for, on white where alpha must go."""
        colours = Colours(picture.pixels_HWC.numpy(), picture.icc)
        if self._keeps_profile(picture):
            colours = to_profile(colours.pixels, picture.metadata.icc or b"")
        if picture.alpha_HW is None:
            return colours
        alpha = picture.alpha_HW.numpy()
        if target.alpha:
            return replace(colours, alpha=alpha)
        note = f"transparency laid on white: {target.name} has none"
        return replace(colours, pixels=flatten(colours.pixels, alpha), notes=(*colours.notes, note))

    def _keeps_profile(self, picture: DecodedImage) -> bool:
        return self._config.keep_profile and picture.metadata.icc is not None

    def _metadata(self, picture: DecodedImage, colours: Colours) -> Metadata:
        if self._config.strip:
            return Metadata(icc=colours.icc)
        kept_profile = self._config.keep_profile and colours.icc == picture.metadata.icc
        metadata = for_output(picture.metadata, picture.width, picture.height, srgb=not kept_profile)
        return replace(metadata, icc=colours.icc)

    def _data(self, picture: DecodedImage, colours: Colours, metadata: Metadata, target: Format, quality: int) -> bytes:
        """Return the file's bytes, with as much of `metadata` as the encoder writes by itself."""
        if picture.deep_HWC is not None and 16 in target.depths:
            return self._deep(picture, colours, metadata, target)
        pixels_HWC = with_alpha(colours)
        if target.name == "JPEG" and not self._config.progressive:
            on_gpu = self._on_gpu(pixels_HWC, quality)
            return jpeg.encode(pixels_HWC, quality, self._config.subsampling) if on_gpu is None else on_gpu
        buffer = io.BytesIO()
        options = self._save_options(target.name, quality) | save_arguments(metadata, target.name)
        Image.fromarray(pixels_HWC).save(buffer, target.name, **options)
        return buffer.getvalue()

    def _deep(self, picture: DecodedImage, colours: Colours, metadata: Metadata, target: Format) -> bytes:
        """Encode with 16 bits per channel."""
        assert picture.deep_HWC is not None, "only called where there are deep pixels"
        values_HWC = picture.deep_HWC.numpy()
        if self._keeps_profile(picture) and colours.icc == picture.metadata.icc:
            values_HWC = to_profile_16_bit(values_HWC, picture.metadata.icc or b"")
        if colours.alpha is not None:
            values_HWC = np.dstack([values_HWC, colours.alpha.astype(np.uint16) * 257])
        if target.name == "TIFF":
            return deep.encode_tiff(values_HWC, metadata.icc, metadata.dpi)
        smallest = io.BytesIO()  # from which the metadata chunks are taken
        Image.new("RGB", (1, 1)).save(smallest, "PNG", **save_arguments(metadata, "PNG"))
        return png.with_metadata_of(deep.encode_png(values_HWC), smallest.getvalue())

    def _on_gpu(self, pixels_HWC: np.ndarray[Any, np.dtype[np.uint8]], quality: int) -> bytes | None:
        least = self._config.gpu_from_pixels
        height, width, _ = pixels_HWC.shape
        if self._gpu is None or least is None or height * width < least:
            return None
        return self._gpu(pixels_HWC, quality, self._config.subsampling)

    def _save_options(self, target: str, quality: int) -> dict[str, Any]:
        config = self._config
        options: dict[str, dict[str, Any]] = {
            "JPEG": {"quality": quality, "subsampling": config.subsampling, "progressive": True},
            "PNG": {"compress_level": 4},
            "TIFF": {"compression": "tiff_lzw"},
            "WEBP": {"lossless": True} if config.lossless else {"quality": quality},
            "AVIF": {"quality": quality, "subsampling": config.subsampling},
        }
        return options[target]


def _reduced(picture: DecodedImage, target: Format, asked: int) -> tuple[str, ...]:
    """Return a remark where the result has fewer bits per channel than the image."""
    if picture.depth <= 8 or (picture.deep_HWC is not None and 16 in target.depths):
        return ()
    if asked == 8:
        how = "--depth 16 keeps more in PNG and TIFF"
    elif 16 not in target.depths:
        how = f"{target.name} holds no more"
    else:
        how = "this kind of image is read with 8"
    return (f"{picture.depth} bits per channel became 8: {how}",)


def encode_device(config: PipelineConfig) -> torch.device | None:
    """Return the device that encodes large JPEGs: the generator's where that is a GPU; None is the CPU.

    Raises `SetupError` as `gpu_of` does.
    """
    return None if config.encode.gpu_from_pixels is None else gpu_of(config.generate.device)


def on_white(picture: DecodedImage, pixels_HWC: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return pixels of `picture`, uint8 [H, W, 3], laid on white by its alpha, as a page shows them."""
    pixels = pixels_HWC.numpy()
    return pixels if picture.alpha_HW is None else flatten(pixels, picture.alpha_HW.numpy())


def with_alpha(colours: Colours) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return uint8 [H, W, 3], or [H, W, 4] where something is translucent."""
    return colours.pixels if colours.alpha is None else np.dstack([colours.pixels, colours.alpha])
