"""The generator run operator by operator: the reference result, and the fallback without a compiler."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.model import upsampling
from engine.model.upsampling import folded_for_inference
from engine.model.weights import Generator
from engine.runtime.backends.base import DTYPES, ParityCase, PixelGenerator, generator_key
from engine.runtime.backends.streams import CopyStreams


class EagerBackend:
    """Run the generator with PyTorch's own kernels."""

    name = "eager"

    def __init__(self, generator: Generator, precision: str, device: torch.device) -> None:
        self.precision = precision
        self._device = device
        self._module = PixelGenerator(folded_for_inference(generator.module), DTYPES[precision]).to(device)
        self._run = CopyStreams(self._module, device) if device.type == "cuda" else self._one_by_one
        self.parity_cases: Sequence[ParityCase] = (
            () if precision == "fp32" else (ParityCase(eager_key(generator, precision, device), self),)
        )

    @torch.inference_mode()
    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        return self._run(pixels_NHWC)

    def _one_by_one(self, pixels_NHWC: Tensor) -> Tensor:
        # As fast as a whole batch on a CPU. Kernels are selected by shape and may round differently for another batch
        # size; one by one, an interrupted and resumed run gives the same bytes as an uninterrupted one.
        return torch.cat([self._module(one_HWC[None]) for one_HWC in pixels_NHWC])


def eager_key(generator: Generator, precision: str, device: torch.device) -> dict[str, str]:
    """Return everything that determines how the kernels round; the result of the parity check is stored under it."""
    return generator_key(EagerBackend.name, generator, precision, device, upsampling.__file__, __file__)
