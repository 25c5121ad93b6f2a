"""Recover from running out of memory; stop cleanly when the GPU is lost."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from engine.errors import StopRun, first_line
from engine.runtime.backends.aoti import PackageFailed

log = logging.getLogger(__name__)


class RecoveringBackend:
    """Run a backend; split a batch that does not fit into memory, and remember the size that did."""

    def __init__(self, backend: Callable[[Tensor], Tensor]) -> None:
        self._backend = backend
        self._max_pixels: int | None = None

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3].

        Raises `torch.OutOfMemoryError` if not even one image fits, and `StopRun` if the GPU is lost.
        """
        while True:
            together = self._fitting(pixels_NHWC)
            try:
                parts = [self._run(part_NHWC) for part_NHWC in torch.split(pixels_NHWC, together)]
            except torch.OutOfMemoryError:
                if together == 1:
                    raise
                self._halve(together, *pixels_NHWC.shape[1:3])
            else:
                return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _fitting(self, pixels_NHWC: Tensor) -> int:
        count, height, width, _ = pixels_NHWC.shape
        return count if self._max_pixels is None else max(1, min(count, self._max_pixels // (height * width)))

    def _halve(self, together: int, height: int, width: int) -> None:
        half = together // 2
        self._max_pixels = half * height * width
        log.warning("Memory does not hold %d images of %dx%d at once: going on with %d.", together, width, height, half)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # blocks sized for the whole batch

    def _run(self, pixels_NHWC: Tensor) -> Tensor:
        try:
            return self._backend(pixels_NHWC)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if is_lost(error):
                reason = first_line(error)
                raise StopRun(
                    f"The GPU stopped working ({reason}); what is done is kept. Once `nvidia-smi` shows it again, run "
                    "the same command again to go on."
                ) from error
            if is_out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            raise


def is_lost(error: RuntimeError) -> bool:
    """Return whether `error` reports that this process cannot use the GPU any more."""
    return isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether `error` means, or is likely to mean, that memory did not suffice.

    A compiled package reports any failure as `API call failed` and prints the reason to standard error. Since its
    shapes have been checked, memory is the likely one; if it is not, smaller batches fail as well, and the caller goes
    on in bands without the package.
    """
    text = str(error)
    return (
        isinstance(error, PackageFailed)
        or "API call failed" in text
        or "out of memory" in text
        or "can't allocate memory" in text
        or "not enough memory" in text
        or "ALLOC_FAILED" in text
    )
