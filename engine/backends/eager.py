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
        translated: Tensor = self._module(pixels_NHWC.to(self._device))
        return translated.cpu()
