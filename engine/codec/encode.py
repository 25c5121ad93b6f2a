"""Pixels to the bytes of a file.

Large JPEGs may be encoded on the generator's GPU (`engine.codec.nvimgcodec`); `encode_device` decides.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor

from engine.codec.colour import Colours, flatten, to_profile
from engine.codec.formats import _MAX_SIDE, output_format
from engine.codec.metadata.correct import for_output
from engine.codec.metadata.write import into_encoded, save_arguments
from engine.codec.nvimgcodec import GpuEncoder
from engine.config import EncodeConfig, PipelineConfig
from engine.errors import SkipImage
from engine.records import Encoded, Failed, Metadata, Picture, Record
from engine.system.device import gpu_of


class Encoder:
    """Encode translated pictures; safe to call from several threads at once."""

    def __init__(self, config: EncodeConfig, device: torch.device | None = None) -> None:
        """`device` encodes JPEGs of at least `config.gpu_from_pixels`; None leaves them to the CPU like the rest."""
        self._config = config
        self._gpu = None if device is None else GpuEncoder(device)

    def __call__(self, records: list[Record[Picture] | Failed]) -> list[Record[Encoded] | Failed]:
        """Answer each record, in order, with its file's bytes or with why there are none."""
        return [r if isinstance(r, Failed) else r.attempt("encode", self._encode) for r in records]

    def _encode(self, record: Record[Picture]) -> Encoded:
        picture = record.payload
        target = output_format(record.options.format, picture.format)
        limit = _MAX_SIDE.get(target)
        if limit is not None and max(picture.width, picture.height) > limit:
            raise SkipImage(f"{target} cannot hold {picture.width}x{picture.height} pixels; use --format png or tiff")
        colours = self._colours(picture, target)
        metadata = self._metadata(picture, colours)
        quality = record.options.quality or self._config.quality
        data, lost = into_encoded(self._data(with_alpha(colours), metadata, target, quality), metadata, target)
        return Encoded(
            data=data,
            format=target,
            width=picture.width,
            height=picture.height,
            notes=(*picture.notes, *colours.notes, *metadata.notes, *lost),
        )

    def _colours(self, picture: Picture, target: str) -> Colours:
        """Give the pixels as they are written: in the profile that was asked for, on white where alpha must go."""
        colours = Colours(picture.pixels_HWC.numpy(), picture.icc)
        if self._config.keep_profile and picture.metadata.icc is not None:
            colours = to_profile(colours.pixels, picture.metadata.icc)
        if picture.alpha_HW is None:
            return colours
        alpha = picture.alpha_HW.numpy()
        if target != "JPEG":
            return replace(colours, alpha=alpha)
        note = "transparency laid on white: JPEG has none"
        return replace(colours, pixels=flatten(colours.pixels, alpha), notes=(*colours.notes, note))

    def _metadata(self, picture: Picture, colours: Colours) -> Metadata:
        if self._config.strip:
            return Metadata(icc=colours.icc)
        kept_profile = self._config.keep_profile and colours.icc == picture.metadata.icc
        metadata = for_output(picture.metadata, picture.width, picture.height, srgb=not kept_profile)
        return replace(metadata, icc=colours.icc)

    def _data(
        self, pixels_HWC: np.ndarray[Any, np.dtype[np.uint8]], metadata: Metadata, target: str, quality: int
    ) -> bytes:
        if target == "JPEG" and not self._config.progressive:
            on_gpu = self._on_gpu(pixels_HWC, quality)
            if on_gpu is not None:
                return on_gpu
            # libjpeg-turbo straight from the array: no copy into a Pillow image, a third less time.
            subsampling = self._config.subsampling.replace(":", "")
            return bytes(simplejpeg.encode_jpeg(pixels_HWC, quality, "RGB", subsampling))
        buffer = io.BytesIO()
        options = self._save_options(target, quality) | save_arguments(metadata, target)
        Image.fromarray(pixels_HWC).save(buffer, target, **options)
        return buffer.getvalue()

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


def encode_device(config: PipelineConfig) -> torch.device | None:
    """Give the device that encodes large JPEGs: the generator's where that is a GPU; None is the CPU.

    Raises `SetupError` as `gpu_of` does.
    """
    return None if config.encode.gpu_from_pixels is None else gpu_of(config.generate.device)


def on_white(picture: Picture, pixels_HWC: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Lay pixels of `picture`, uint8 [H, W, 3], on white as far as they are translucent: how a page shows them."""
    pixels = pixels_HWC.numpy()
    return pixels if picture.alpha_HW is None else flatten(pixels, picture.alpha_HW.numpy())


def with_alpha(colours: Colours) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Give uint8 [H, W, 3], or [H, W, 4] where something is translucent."""
    return colours.pixels if colours.alpha is None else np.dstack([colours.pixels, colours.alpha])
