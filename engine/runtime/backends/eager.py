"""The module as it is, operator by operator: the reference result, and the way without a compiler."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.model import upsampling
from engine.model.upsampling import folded_for_inference
from engine.model.weights import Generator
from engine.runtime.backends.base import DTYPES, Entry, PixelGenerator, generator_key
from engine.runtime.backends.streams import Lanes


class EagerBackend:
    """Runs the generator with PyTorch's own kernels; fp32 unless asked otherwise."""

    name = "eager"

    def __init__(self, generator: Generator, precision: str, device: torch.device) -> None:
        self.precision = precision
        self._device = device
        self._module = PixelGenerator(folded_for_inference(generator.module), DTYPES[precision]).to(device)
        self._run = Lanes(self._module, device) if device.type == "cuda" else self._one_by_one
        self.entries: Sequence[Entry] = (
            () if precision == "fp32" else (Entry(eager_key(generator, precision, device), self),)
        )

    @torch.inference_mode()
    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        return self._run(pixels_NHWC)

    def _one_by_one(self, pixels_NHWC: Tensor) -> Tensor:
        # As fast on a CPU as together: kernels are chosen by shape, and those for another number of images may round
        # differently. So a run that was interrupted gives the very bytes of one that was not.
        return torch.cat([self._module(one_HWC[None]) for one_HWC in pixels_NHWC])


def eager_key(generator: Generator, precision: str, device: torch.device) -> dict[str, str]:
    """Name everything that decides how the kernels round: what the gate found holds for this alone."""
    return generator_key(EagerBackend.name, generator, precision, device, upsampling.__file__, __file__)
