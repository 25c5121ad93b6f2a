"""What every backend promises."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from engine.model import network as model
from engine.model import pixels
from engine.model.network import ResnetGenerator
from engine.model.pixels import to_network, to_pixels
from engine.model.weights import Generator
from engine.system.device import kernels_of
from engine.system.versions import code_of

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def generator_key(
    backend: str, generator: Generator, precision: str, device: torch.device, *files: str
) -> dict[str, str]:
    """Name what every backend's result depends on; `files` are the sources of its own code that shape it.

    The network's code counts for all of them.
    """
    return {
        "backend": backend,
        "weights": generator.sha256,
        "code": code_of(model.__file__, pixels.__file__, __file__, *files),
        "precision": precision,
        "machine": kernels_of(device),
        "torch": torch.__version__,
    }


@dataclass(frozen=True)
class Entry:
    """One package in the registry of compiled generators, or what eager rounds to, with what runs it alone."""

    key: Mapping[str, str]
    run: Callable[[Tensor], Tensor]
    """Translates uint8 [N, H, W, 3] in CPU memory to the same."""


class Backend(Protocol):
    """Runs one generator on one device in one precision.

    `name` is what `--backend` calls it, `precision` one of `DTYPES`.
    """

    name: str
    precision: str

    @property
    def entries(self) -> Sequence[Entry]:
        """What the gate looks at, each on its own: the packages it runs; nothing for eager fp32, the reference."""
        ...

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3] to the same shape and dtype, in CPU memory.

        H and W are multiples of the generator's stride. An image's result does not depend on the other images of its
        batch. Called from one thread at a time.
        """
        ...


class PixelGenerator(nn.Module):
    """A generator with uint8 [N, H, W, 3] on both sides, so that conversions are compiled along with it."""

    def __init__(self, module: ResnetGenerator, dtype: torch.dtype) -> None:
        super().__init__()
        self.generator = module.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype = dtype

    def forward(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        return to_pixels(self.generator(to_network(pixels_NHWC, self.dtype)))
