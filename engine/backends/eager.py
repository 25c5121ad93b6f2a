"""The module as it is, operator by operator: the reference result, and the way without a compiler."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from engine.backends.base import DTYPES, PixelGenerator
from engine.weights import Generator


class EagerBackend:
    """Runs the generator with PyTorch's own kernels; fp32 unless asked otherwise."""

    name = "eager"

    def __init__(self, generator: Generator, precision: str, device: torch.device) -> None:
        self.precision = precision
        self._device = device
        self._module = PixelGenerator(copy.deepcopy(generator.module), DTYPES[precision]).to(device)

    @torch.inference_mode()
    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        # On a CPU one image at a time, which is as fast: kernels are chosen by shape, and those for another number
        # of images may round differently. So a run that was interrupted gives the very bytes of one that was not.
        groups = [one_HWC[None] for one_HWC in pixels_NHWC] if self._device.type == "cpu" else [pixels_NHWC]
        return torch.cat([self._module(group.to(self._device)).cpu() for group in groups])
