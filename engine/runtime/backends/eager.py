"""The generator run operator by operator: the fallback without a compiler, and in fp32 the reference result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.model import folding, inference, upsampling
from engine.model.inference import InferenceGenerator
from engine.model.weights import Generator
from engine.runtime.backends.base import DEFAULT_KERNELS, PRECISIONS, KernelOptions, ParityCase, generator_key
from engine.runtime.backends.graph import copy_streams


class EagerBackend:
    """Run the generator with PyTorch's own kernels."""

    name = "eager"
    _run: Callable[[Tensor], Tensor]

    def __init__(
        self, generator: Generator, precision: str, device: torch.device, options: KernelOptions = DEFAULT_KERNELS
    ) -> None:
        """Move the generator to `device`; raises `BackendUnavailable` if the trunk of `options` does not fit it."""
        self.precision = precision
        types = PRECISIONS[precision]
        module = InferenceGenerator(generator.module, types.dtype, outer_dtype=types.outer_dtype)
        self._module = options.apply(module, generator).to(device)
        key = eager_key(generator, precision, device, options)
        cases = [] if precision == "fp32" else [ParityCase(key, self)]
        if device.type == "cuda":
            self._run, captured = copy_streams(self._module, device, key, options)
            cases += captured
        else:
            self._run = self._one_by_one
        self.parity_cases: Sequence[ParityCase] = cases

    @torch.inference_mode()
    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        return self._run(pixels_NHWC)

    def _one_by_one(self, pixels_NHWC: Tensor) -> Tensor:
        # As fast as a whole batch on a CPU. Kernels are selected by shape and may round differently for another batch
        # size; one by one, an interrupted and resumed run gives the same bytes as an uninterrupted one.
        translated = [self._module(one_HWC[None]) for one_HWC in pixels_NHWC]
        return translated[0] if len(translated) == 1 else torch.cat(translated)


def eager_key(
    generator: Generator, precision: str, device: torch.device, options: KernelOptions = DEFAULT_KERNELS
) -> dict[str, str]:
    """Return everything that determines how the kernels round; the result of the parity check is stored under it."""
    files = (folding.__file__, inference.__file__, upsampling.__file__, __file__)
    return {**generator_key(EagerBackend.name, generator, precision, device, *files), **options.key}
