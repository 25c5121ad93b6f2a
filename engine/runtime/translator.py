"""Translate batches of images of any size; floating-point values never leave this stage."""

from __future__ import annotations

import logging
import os
import threading
import time

import torch
from torch import Tensor

from engine.config import GPU_BATCHES_IN_FLIGHT, GenerateConfig, num_cores
from engine.errors import SetupError, SkipImage
from engine.model.network import ResnetGenerator
from engine.model.weights import Generator
from engine.runtime.backends.base import PRECISIONS, Backend
from engine.runtime.background import BackgroundCompilation
from engine.runtime.cache import PackageCache, default_cache
from engine.runtime.recovery import RecoveringBackend
from engine.runtime.select import check_kernel_options, choose_backend
from engine.runtime.tiled.translate import cast_layers, translate_tiled, whole_image_bytes, whole_only
from engine.system.device import choose_device, free_bytes
from engine.system.memory import available_bytes

log = logging.getLogger(__name__)

MIN_SIDE = 16
"""Smallest side in pixels; at a quarter of it, the deepest reflection padding still has pixels to mirror."""

# Share of the free memory at the start of a run; the rest is for images in other stages and for other processes.
_SHARE_OF_FREE_MEMORY = 0.5


class BatchTranslator:
    """A generator on its backend: uint8 pixels in, uint8 pixels out, any size.

    With backend `auto` nothing is loaded or compiled before the first image, and on a CPU a long run starts with
    PyTorch's own kernels and changes to a package that is compiled in the background; `backend` and `reason` change
    with it.
    """

    def __init__(self, generator: Generator, config: GenerateConfig | None = None) -> None:
        """Prepare to translate; a backend other than `auto` is loaded, and if necessary compiled, at once.

        Raises `SetupError` if the requested backend or device is not available on this machine.
        """
        self._config = config = config or GenerateConfig()
        self._generator = generator
        self.card = generator.card
        self._device = choose_device(config.device)
        check_kernel_options(config, self._device, generator.module.arch)
        if self._device.type == "cpu":  # PyTorch ignores processor quotas, and its threads would be throttled
            torch.set_num_threads(min(torch.get_num_threads(), num_cores()))
        self._process = os.getpid()
        self._loading = threading.Lock()
        self._loaded: tuple[Backend, str] | None = None
        self._compilation: BackgroundCompilation | None = None
        if config.backend != "auto":
            self._load()
        self._module = generator.module
        self._stride = self._module.arch.stride
        if 4 in (self._module.arch.channels_in, self._module.arch.channels_out):
            log.warning("%s takes alpha as opaque, and the alpha that it makes is dropped.", self.card.name)
        self._banded: tuple[str, ResnetGenerator] | None = None
        free = free_bytes(self._device) if self._device.type == "cuda" else available_bytes()
        self._budget_bytes = config.memory_bytes or int(free * _SHARE_OF_FREE_MEMORY)
        self._large = threading.RLock()
        in_flight = config.batches_in_flight or (GPU_BATCHES_IN_FLIGHT if self._device.type == "cuda" else 1)
        self._small_bytes = self._budget_bytes // in_flight

    @property
    def backend(self) -> Backend:
        """The backend in use; loads it first."""
        return self._load()[0]

    @property
    def reason(self) -> str:
        """The backend in use, its precision and device, and why it was chosen; loads it first."""
        return self._load()[1]

    @property
    def is_loaded(self) -> bool:
        """Whether a backend has been loaded."""
        return self._loaded is not None

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3] of any H and W to the same shape and dtype.

        Sides that the network cannot take are padded by reflection and the result is cropped. Images too large for the
        memory budget are translated in bands, with the same result. Raises `SkipImage` if the budget is too small even
        for that, or for a whole image with a U-Net, which has no bands, and `SetupError` in a process that was forked
        from the one that made the translator, where PyTorch's threads do not exist and it would wait for them for ever.
        """
        self._require_own_process()
        height, width = pixels_NHWC.shape[1:3]
        if self._device.type == "cpu":
            pixels_NHWC = pixels_NHWC.cpu()
        padded_NHWC = pad(pixels_NHWC, self._stride)
        return self._translate(padded_NHWC)[:, :height, :width].contiguous()

    def _require_own_process(self) -> None:
        if self._process != os.getpid() and (self._device.type == "cuda" or torch.get_num_threads() > 1):
            raise SetupError(
                "A translator cannot be used in a process that was forked after it was made: PyTorch's threads are "
                "missing there. Make a translator in each process, start processes with the method 'spawn', or call "
                "torch.set_num_threads(1) in them on a CPU."
            )

    def _load(self) -> tuple[Backend, str]:
        if self._loaded is None:
            with self._loading:
                if self._loaded is None:
                    packages = PackageCache(self._config.cache or default_cache())
                    backend, reason = choose_backend(self._generator, self._config)
                    self._run = RecoveringBackend(backend)
                    self._compilation = BackgroundCompilation.if_possible(
                        self._generator, self._config, self._device, packages, backend
                    )
                    self._loaded = backend, reason
        return self._loaded

    def _translate(self, pixels_NHWC: Tensor) -> Tensor:
        needed_bytes = self._needed_bytes(pixels_NHWC)
        if needed_bytes <= self._small_bytes:
            return self._whole(pixels_NHWC)
        with self._large:  # the threads that keep a GPU busy share one budget
            return self._whole(pixels_NHWC) if needed_bytes <= self._budget_bytes else self._in_parts(pixels_NHWC)

    def _whole(self, pixels_NHWC: Tensor) -> Tensor:
        started_s = time.perf_counter()
        try:
            translated_NHWC = self._run(pixels_NHWC)
        except torch.OutOfMemoryError:  # an image alone needs more than estimated, or other processes took memory
            height, width = pixels_NHWC.shape[1:3]
            if not isinstance(self._module, ResnetGenerator):
                raise self._too_large(pixels_NHWC[:1]) from None
            log.warning("Memory does not hold a photo of %dx%d at once: going on in bands.", width, height)
            return self._in_bands(pixels_NHWC, self._module)
        self._maybe_change_backend(pixels_NHWC.shape[:3].numel(), time.perf_counter() - started_s)
        return translated_NHWC

    def _maybe_change_backend(self, num_pixels: int, seconds: float) -> None:
        if self._compilation is None:
            return
        self._compilation.observe(num_pixels, seconds)
        compiled = self._compilation.result()
        if compiled is not None:
            self._loaded = compiled
            self._run = RecoveringBackend(compiled[0])
            log.info("Changed to %s.", compiled[1])
        if self._compilation.finished:
            self._compilation = None

    def _needed_bytes(self, pixels_NHWC: Tensor) -> int:
        count, height, width, _ = pixels_NHWC.shape
        dtype = PRECISIONS[self.backend.precision].outer_dtype
        return count * whole_image_bytes(self._module.arch, height, width, dtype)

    def _in_parts(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate what does not fit at once: in bands, or with a U-Net one image after the other."""
        if isinstance(self._module, ResnetGenerator):
            return self._in_bands(pixels_NHWC, self._module)
        if self._needed_bytes(pixels_NHWC[:1]) > self._budget_bytes:
            raise self._too_large(pixels_NHWC[:1])
        return torch.cat([self._whole(one_HWC[None]) for one_HWC in pixels_NHWC])

    def _too_large(self, pixels_NHWC: Tensor) -> SkipImage:
        height, width = pixels_NHWC.shape[1:3]
        return whole_only(height, width, self._needed_bytes(pixels_NHWC), self._budget_bytes)

    def _in_bands(self, pixels_NHWC: Tensor, generator: ResnetGenerator) -> Tensor:
        precision = self.backend.precision
        with self._large:
            if self._banded is None or self._banded[0] != precision:
                types = PRECISIONS[precision]
                module = cast_layers(generator, types.dtype, types.outer_dtype).to(self._device)
                self._banded = precision, module
            translated = [
                translate_tiled(self._banded[1], pixels_HWC, budget_bytes=self._budget_bytes)
                for pixels_HWC in pixels_NHWC.cpu()
            ]
        return torch.stack(translated)


def pad(pixels_NHWC: Tensor, stride: int) -> Tensor:
    """Extend [N, H, W, 3] below and to the right until both sides are multiples of `stride` and at least 16.

    The added pixels mirror the image, back and forth if a U-Net's stride is larger than the image; where it is too
    small for that, they repeat its edge.
    """
    height, width = pixels_NHWC.shape[1:3]
    missing = [max(MIN_SIDE, -(-side // stride) * stride) - side for side in (height, width)]
    if missing == [0, 0]:
        return pixels_NHWC
    mirror = (missing[0] < height and missing[1] < width) or min(height, width) >= MIN_SIDE
    rows, columns = (_extended(side, more, mirror) for side, more in zip((height, width), missing, strict=True))
    return pixels_NHWC[:, rows][:, :, columns]  # by index, because bytes take a quarter of the memory of floats


def _extended(side: int, more: int, mirror: bool) -> Tensor:
    """Return positions 0 to `side` - 1, then `more` that mirror them, back and forth, or repeat the last."""
    positions = torch.arange(side + more)
    if not mirror or side == 1:
        return positions.clamp(max=side - 1)
    period = 2 * (side - 1)
    return side - 1 - (positions % period - (side - 1)).abs()
