"""The generator run operator by operator: the fallback without a compiler, and in fp32 the reference result."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.model import folding, inference, upsampling
from engine.model.inference import InferenceGenerator
from engine.model.weights import Generator
from engine.runtime.backends.base import PRECISIONS, ParityCase, generator_key
from engine.runtime.backends.streams import CopyStreams


class EagerBackend:
    """Run the generator with PyTorch's own kernels."""

    name = "eager"

    def __init__(self, generator: Generator, precision: str, device: torch.device) -> None:
        self.precision = precision
        types = PRECISIONS[precision]
        self._module = InferenceGenerator(generator.module, types.dtype, outer_dtype=types.outer_dtype).to(device)
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
        translated = [self._module(one_HWC[None]) for one_HWC in pixels_NHWC]
        return translated[0] if len(translated) == 1 else torch.cat(translated)


def eager_key(generator: Generator, precision: str, device: torch.device) -> dict[str, str]:
    """Return everything that determines how the kernels round; the result of the parity check is stored under it."""
    files = (folding.__file__, inference.__file__, upsampling.__file__, __file__)
    return generator_key(EagerBackend.name, generator, precision, device, *files)
