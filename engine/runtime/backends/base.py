"""The interface of all backends."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from engine.model import card, layers, network, pixels, unet, winograd
from engine.model.inference import InferenceGenerator
from engine.model.network import GeneratorNetwork
from engine.model.pixels import to_network, to_pixels
from engine.model.weights import Generator
from engine.system.device import kernels_of
from engine.system.versions import code_of

Trunk = Literal["torch", "winograd", "triton"]
"""Kernels of a generator's residual blocks."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Floating-point types of a generator's layers."""

    dtype: torch.dtype
    outer_dtype: torch.dtype
    """Type of the first and last layers."""


PRECISIONS = {
    **{name: Precision(dtype, dtype) for name, dtype in DTYPES.items()},
    "bf16-mixed": Precision(torch.bfloat16, torch.float32),
    "fp16-mixed": Precision(torch.float16, torch.float32),
}


def generator_key(
    backend: str, generator: Generator, precision: str, device: torch.device, *files: str
) -> dict[str, str]:
    """Return the part of a package's key common to all backends: everything that a backend's result depends on.

    `files` are the source files of the backend's own code that determine its result, beside the network's.
    """
    return {
        "backend": backend,
        "weights": generator.sha256,
        "code": code_of(*(part.__file__ for part in (card, layers, network, pixels, unet)), __file__, *files),
        "precision": precision,
        "machine": kernels_of(device),
        "torch": torch.__version__,
    }


@dataclass(frozen=True)
class KernelOptions:
    """What can be switched on for backends inductor and eager."""

    trunk: Trunk = "torch"
    """Kernels of the residual blocks."""
    graph_pixels: int = 0
    """Pixels of the largest batch that is replayed as a CUDA graph; 0 for none."""

    @property
    def key(self) -> dict[str, str]:
        """The part of a package's key that describes the trunk; empty for PyTorch's."""
        folder = Path(__file__).parent
        if self.trunk == "torch":
            return {}
        if self.trunk == "winograd":
            return {"trunk": self.trunk, "trunk_code": code_of(winograd.__file__, str(folder / "winograd.py"))}
        code = code_of(*(str(folder / name) for name in ("trunk.py", "trunk_kernels.py")))
        return {"trunk": self.trunk, "trunk_code": code, "triton": importlib.metadata.version("triton")}

    def apply(self, module: InferenceGenerator, generator: Generator) -> InferenceGenerator:
        """Give `module`, made from `generator`, the trunk in Triton if that is on.

        Raises `BackendUnavailable` if it does not fit. The trunk `winograd` is compiled in parts.
        """
        if self.trunk != "triton":
            return module
        from engine.runtime.backends.trunk import use_triton_trunk  # not at the top: Triton comes with PyTorch for CUDA

        return use_triton_trunk(module, generator.module)


DEFAULT_KERNELS = KernelOptions()


@dataclass(frozen=True)
class ParityCase:
    """A compiled package, or eager kernels in one precision, as the parity check runs it: on its own."""

    key: Mapping[str, str]
    run: Callable[[Tensor], Tensor]
    """Translate uint8 [N, H, W, 3] in CPU memory to the same."""


class Backend(Protocol):
    """Run one generator on one device in one precision.

    `name` is the value of `--backend`, `precision` a key of `PRECISIONS`.
    """

    name: str
    precision: str

    @property
    def parity_cases(self) -> Sequence[ParityCase]:
        """The packages that the parity check compares, each on its own; empty for eager fp32, the reference."""
        ...

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3] to the same shape and dtype, in CPU memory.

        H and W are multiples of the generator's stride. The result of an image does not depend on the other images of
        its batch. Safe for several threads on a GPU; called from one thread at a time on a CPU.
        """
        ...


class PixelGenerator(nn.Module):
    """A generator from uint8 [N, H, W, 3] to the same, otherwise unchanged: the reference of the parity check."""

    def __init__(self, module: GeneratorNetwork, dtype: torch.dtype) -> None:
        super().__init__()
        self.generator = module.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.dtype = dtype

    def forward(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        return to_pixels(self.generator(to_network(pixels_NHWC, self.dtype, self.generator.arch.channels_in)))
