"""Decode and resize JPEGs on a GPU with DALI; PyTorch uses the result where it is, without a copy.

    bytes ── hardware or CUDA decoder ── resize ── uint8 [h, w, 3] in the GPU's memory ── generator

Baseline JPEGs only: that is what the hardware decodes. Every other image is decoded on the CPU meanwhile. DALI is
optional; without it all images are decoded on the CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import LifoQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from engine.errors import first_line
from engine.system.extras import install_hint

log = logging.getLogger(__name__)

_PIPELINES = 2  # one prepares its images on the CPU while the other's are on the GPU
_THREADS = 4  # of each pipeline, for the parts of decoding that stay on the CPU
_HARDWARE_SHARE = 0.65  # of a batch, for the hardware decoder; the rest is decoded by CUDA. To be measured on a card
_HARDWARE_SIDE = 2048  # pixels; memory set aside for the hardware decoder, which takes more when a larger photo comes


@dataclass(frozen=True, slots=True)
class Jpeg:
    """An encoded image and the size that it is decoded to."""

    data: bytes = field(repr=False)
    height: int
    """Pixels, before the image is turned upright."""
    width: int
    """Pixels, likewise."""


class GpuDecoder:
    """Decode and resize baseline JPEGs on one device; safe to call from several threads.

    On a CPU the same pipeline runs with DALI's operators for the CPU, which is how it is tested without a card.
    """

    def __init__(self, device: torch.device, max_images: int) -> None:
        """`max_images` is the largest number of images in one call."""
        self._device = device
        self._max_images = max_images
        self._unusable = False
        self._idle: LifoQueue[_Pipeline | None] = LifoQueue()
        for _ in range(_PIPELINES):
            self._idle.put(None)  # built by the first call that needs it

    def __call__(self, jpegs: Sequence[Jpeg]) -> list[Tensor | None]:
        """Decode to uint8 [height, width, 3] on the device, ready to be used on any stream.

        None stands for an image that cannot be decoded here. One bad image fails its whole batch, so the images of a
        batch that fails are decoded one by one.
        """
        if self._unusable or not jpegs:
            return [None] * len(jpegs)
        pipeline = self._idle.get()
        try:
            pipeline = pipeline or self._built()
            if pipeline is None:
                return [None] * len(jpegs)
            return list(pipeline.decode(jpegs))
        except RuntimeError:
            pipeline = None  # DALI may call a pipeline unusable after an error
            if len(jpegs) == 1:
                return [None]
        finally:
            self._idle.put(pipeline)
        return [self([jpeg])[0] for jpeg in jpegs]

    def _built(self) -> _Pipeline | None:
        try:
            return _Pipeline(self._device, self._max_images)
        except (ImportError, OSError, RuntimeError) as error:  # OSError: a library it needs is missing
            self._unusable = True
            reason = first_line(error)
            log.warning(
                "JPEGs are decoded on the CPU: DALI cannot decode on %s (%s); %s installs it.",
                self._device,
                reason,
                install_hint("dali"),
            )
            return None


class _Pipeline:
    """One DALI pipeline, used by one thread at a time."""

    def __init__(self, device: torch.device, max_images: int) -> None:
        from nvidia.dali import fn, pipeline_def, types  # optional, and takes a second to import

        on_gpu = device.type == "cuda"
        hardware: dict[str, Any] = {
            "hw_decoder_load": _HARDWARE_SHARE,
            "preallocate_width_hint": _HARDWARE_SIDE,
            "preallocate_height_hint": _HARDWARE_SIDE,
            "jpeg_fancy_upsampling": True,  # chroma as libjpeg does it, for the CPU's result
        }

        @pipeline_def(  # type: ignore[untyped-decorator]
            batch_size=max_images,
            num_threads=_THREADS if on_gpu else 1,
            device_id=device.index if on_gpu else None,
            prefetch_queue_depth=1,
            exec_dynamic=True,  # outputs live as long as someone holds them, and may leave without a copy
        )
        def decode() -> object:
            encoded = fn.external_source(name="encoded", device="cpu", batch=True, no_copy=True)
            size = fn.external_source(name="size", device="cpu", batch=True)
            pixels = fn.decoders.image(
                encoded,
                device="mixed" if on_gpu else "cpu",
                output_type=types.RGB,
                adjust_orientation=False,  # applied by `engine.codec.geometry.upright`, the same way for every format
                **(hardware if on_gpu else {}),
            )
            return fn.resize(pixels, size=size, interp_type=types.INTERP_CUBIC, antialias=True)

        self._pipeline = decode()
        self._pipeline.build()

    def decode(self, jpegs: Sequence[Jpeg]) -> list[Tensor]:
        """Decode to uint8 [height, width, 3] each; raises `RuntimeError` when any of them is bad."""
        self._pipeline.feed_input("encoded", [np.frombuffer(jpeg.data, np.uint8) for jpeg in jpegs])
        self._pipeline.feed_input("size", [np.array([jpeg.height, jpeg.width], np.float32) for jpeg in jpegs])
        (decoded,) = self._pipeline.run()  # without a stream: it waits, so that any stream may use the result
        return [from_dlpack(decoded[i]) for i in range(len(jpegs))]
