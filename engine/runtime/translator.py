"""Batches of pictures through a generator; floats never leave this stage."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from engine.config import GenerateConfig
from engine.errors import StopRun
from engine.model.weights import Generator
from engine.runtime.backends.base import DTYPES
from engine.runtime.select import choose_backend
from engine.runtime.tiled.translate import translate_tiled, whole_image_bytes
from engine.system.device import choose_device, free_bytes
from engine.system.memory import available_bytes

log = logging.getLogger(__name__)


class RecoveringBackend:
    """Runs a backend; a batch that does not fit into memory goes in halves, and a lost GPU ends the run cleanly.

    What fitted is remembered, so that memory runs out once and not with every batch.
    """

    def __init__(self, backend: Callable[[Tensor], Tensor]) -> None:
        self._backend = backend
        self._most_pixels: int | None = None

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3].

        Raises `torch.OutOfMemoryError` when not even one image fits, and `StopRun` when the GPU does not answer.
        """
        while True:
            together = self._fitting(pixels_NHWC)
            try:
                return torch.cat([self._run(part_NHWC) for part_NHWC in torch.split(pixels_NHWC, together)])
            except torch.OutOfMemoryError:
                if together == 1:
                    raise
                self._halve(together, *pixels_NHWC.shape[1:3])

    def _fitting(self, pixels_NHWC: Tensor) -> int:
        count, height, width, _ = pixels_NHWC.shape
        return count if self._most_pixels is None else max(1, min(count, self._most_pixels // (height * width)))

    def _halve(self, together: int, height: int, width: int) -> None:
        half = together // 2
        self._most_pixels = half * height * width
        log.warning(
            "The GPU's memory does not hold %d images of %dx%d at once: going on with %d.",
            together,
            width,
            height,
            half,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # blocks cut for the whole batch

    def _run(self, pixels_NHWC: Tensor) -> Tensor:
        try:
            return self._backend(pixels_NHWC)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not is_lost(error):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise StopRun(
                f"The GPU stopped working ({reason}); what is done is kept. Once `nvidia-smi` shows it again, run the "
                "same command again to go on."
            ) from error


def is_lost(error: RuntimeError) -> bool:
    """Whether `error` says that the GPU's state is beyond repair for this process."""
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


log = logging.getLogger(__name__)

MIN_SIDE = 16
"""Pixels; at a quarter of it the deepest reflection padding still finds pixels to mirror."""

# What a run takes of the memory that is free when it starts; the rest is for pictures on their way and for others.
_SHARE_OF_FREE_MEMORY = 0.5


class BatchTranslator:
    """A generator on its backend: uint8 pixels in, uint8 pixels out, any size."""

    def __init__(self, generator: Generator, config: GenerateConfig | None = None) -> None:
        """Choose a backend, compile or load what it needs, and say what was chosen and why.

        Raises `SetupError` when the backend or device asked for is not to be had on this machine.
        """
        config = config or GenerateConfig()
        self.card = generator.card
        self._device = choose_device(config.device)
        self.backend, self.reason = choose_backend(generator, config)
        self._run = RecoveringBackend(self.backend)
        self._stride = generator.card.architecture.stride
        self._module = generator.module
        free = free_bytes(self._device) if self._device.type == "cuda" else available_bytes()
        self._budget_bytes = config.memory_bytes or int(free * _SHARE_OF_FREE_MEMORY)

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3] of any H and W to the same shape and dtype.

        Sides that the network cannot take are padded by reflection, and the result is cropped back. Images too large
        for the memory budget go through in bands, with the same result. Raises `SkipImage` when the budget is too
        small even for that.
        """
        height, width = pixels_NHWC.shape[1:3]
        if self._device.type == "cpu":
            pixels_NHWC = pixels_NHWC.cpu()
        padded_NHWC = pad(pixels_NHWC, self._stride)
        return self._translate(padded_NHWC)[:, :height, :width].contiguous()

    def _translate(self, pixels_NHWC: Tensor) -> Tensor:
        if self._fits(pixels_NHWC):
            try:
                return self._run(pixels_NHWC)
            except torch.OutOfMemoryError:  # one image alone needed more than was estimated, or others took memory
                height, width = pixels_NHWC.shape[1:3]
                log.warning(
                    "The GPU's memory does not hold a photo of %dx%d at once: going on in bands.", width, height
                )
        return self._in_bands(pixels_NHWC)

    def _fits(self, pixels_NHWC: Tensor) -> bool:
        count, height, width, _ = pixels_NHWC.shape
        needed_bytes = count * whole_image_bytes(self._module.arch, height, width, DTYPES[self.backend.precision])
        return needed_bytes <= self._budget_bytes

    def _in_bands(self, pixels_NHWC: Tensor) -> Tensor:
        dtype = DTYPES[self.backend.precision]
        weight = next(self._module.parameters())
        if (weight.dtype, weight.device) != (dtype, self._device):
            self._module = copy.deepcopy(self._module).to(self._device, dtype)
        translated = [
            translate_tiled(self._module, pixels_HWC, budget_bytes=self._budget_bytes)
            for pixels_HWC in pixels_NHWC.cpu()
        ]
        return torch.stack(translated)


def pad(pixels_NHWC: Tensor, stride: int) -> Tensor:
    """Extend [N, H, W, 3] below and to the right until both sides are multiples of `stride` and at least 16.

    The added pixels mirror the image; where it is too small for that, they repeat its edge.
    """
    height, width = pixels_NHWC.shape[1:3]
    missing = [max(MIN_SIDE, -(-side // stride) * stride) - side for side in (height, width)]
    if missing == [0, 0]:
        return pixels_NHWC
    mirror = missing[0] < height and missing[1] < width
    rows, columns = (_extended(side, more, mirror) for side, more in zip((height, width), missing, strict=True))
    return pixels_NHWC[:, rows][:, :, columns]  # by index, since bytes take a quarter of what floats would


def _extended(side: int, more: int, mirror: bool) -> Tensor:
    """Positions 0 to `side` - 1, then `more` that go back from the last but one, or that repeat the last."""
    last = torch.arange(side - 2, side - 2 - more, -1) if mirror else torch.full((more,), side - 1)
    return torch.cat((torch.arange(side), last))
