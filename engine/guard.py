"""What a GPU does wrong in the middle of a run: too little memory, or gone."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from engine.errors import StopRun

log = logging.getLogger(__name__)


class Guarded:
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
