"""The residual blocks of a ResNet generator in Triton, with InstanceNorm's statistics in the convolution's epilogue.

Activations are half precision, channels last, and stored with reflection padding: a matrix [N (H + 2) (W + 2), C]. In
this layout a tap of the 3x3 kernel shifts all rows by the same distance, so that the convolution is nine products of
shifted rows with a matrix. Two of every W + 2 rows are no output pixel, 3 % of the arithmetic at 64x64. A layer takes
three kernels (`engine.runtime.backends.trunk_kernels`):

    convolve    nine products in float32; stores the result, and of each tile the sum and the squared deviations
    statistics  combines those of an image's tiles into a scale and a shift per channel
    apply       scales, applies ReLU or adds the residual, and stores the padded input of the next layer

Deviations are taken from the mean of a tile and combined as in Chan, Golub, LeVeque, "Algorithms for Computing the
Sample Variance", 1983, so that the variance is not the difference of two large sums. There are no atomic additions, so
that the same batch always gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
import triton
from torch import Tensor, nn
from torch.library import triton_op, wrap_triton

from engine.errors import BackendUnavailable
from engine.model.card import Architecture
from engine.model.inference import InferenceGenerator
from engine.model.network import GeneratorNetwork, ResnetBlock, ResnetGenerator
from engine.runtime.backends.trunk_kernels import apply, convolve, statistics

_APPLY_ROWS = 16
"""Pixels that a program of `apply` stores."""
_STATISTICS_CHANNELS = 32
"""Channels that a program of `statistics` combines."""
_STATISTICS_TILES = 64
"""Tiles that it loads at once; an image of 256x256 has 33."""
_LEAST_CHANNELS = 16
"""Smallest side of a matrix product in Triton."""


@dataclass(frozen=True)
class Tiling:
    """Shape of the tiles that a program of `convolve` computes."""

    rows: int = 128
    """Pixels. At 64x64 an image has 33 tiles of 128, so that a batch of 32 fills the 132 multiprocessors of an H100
    exactly eight times."""
    columns: int = 256
    """Output channels at most."""
    depth: int = 64
    """Input channels of one product at most."""
    stages: int = 4
    """Products whose inputs are loaded at the same time."""
    warps: int = 8


TILING = Tiling()


@triton_op("solstice::conv_norm", mutates_args=())
def conv_norm(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, eps: float, residual: Tensor | None) -> Tensor:
    """Convolve, normalise, and add `residual` or, if it is None, apply ReLU; return the padded input of the next layer.

    `x`, `residual` and the result are half precision [N, H + 2, W + 2, C], padded by reflection; `weight` is [9 C, C],
    and `scale` and `shift` are the float32 [C] of the norm.
    """
    assert x.is_contiguous()
    count, height, width, channels = x.shape
    H, W = height - 2, width - 2
    columns, depth = min(TILING.columns, channels), min(TILING.depth, channels)
    tiles = (H * width - 2 + TILING.rows - 1) // TILING.rows
    made = x.new_empty((count, H, W, channels))
    sums = x.new_empty((count, tiles, 2, channels), dtype=torch.float32)
    scales = x.new_empty((count, 2, channels), dtype=torch.float32)
    padded = torch.empty_like(x)
    _launch(convolve, (count * tiles * (channels // columns),))(
        x, weight, made, sums, H, W, tiles, channels, TILING.rows, columns, depth, TILING.stages, num_warps=TILING.warps
    )
    together = min(_STATISTICS_CHANNELS, channels)
    _launch(statistics, (count, channels // together))(
        sums, scale, shift, scales, H, W, tiles, eps, channels, TILING.rows, together, _STATISTICS_TILES
    )
    blocks = (height * width + _APPLY_ROWS - 1) // _APPLY_ROWS
    _launch(apply, (count * blocks,))(
        made, scales, x if residual is None else residual, padded, H, W, channels, _APPLY_ROWS, residual is not None
    )
    return padded


def _launch(kernel: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
    # Triton's interpreter, which runs the kernels in tests, is no kernel that PyTorch could trace.
    traced = wrap_triton(kernel) if isinstance(kernel, triton.JITFunction) else kernel
    return cast("Callable[..., Any]", traced[grid])


class TritonTrunk(nn.Module):
    """The residual blocks of a generator for inference; [N, C, H, W] in and out."""

    def __init__(self, blocks: Sequence[ResnetBlock]) -> None:
        """Compute what `blocks` do in half precision; `unfit` names what they must be like."""
        super().__init__()
        self._eps: list[float] = []
        for block in blocks:
            _, conv, norm, _, _, conv_2, norm_2 = block.conv_block
            self._add(conv, norm)
            self._add(conv_2, norm_2)

    def _add(self, conv: nn.Module, norm: nn.Module) -> None:
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.InstanceNorm2d)
        i, channels = len(self._eps), conv.out_channels
        # Rows are inputs of a tap, columns outputs. The bias cancels in the norm.
        weight = conv.weight.detach().permute(2, 3, 1, 0).reshape(-1, channels).to(torch.float16, copy=True)
        scale = torch.ones(channels) if norm.weight is None else norm.weight.detach().float().clone()
        shift = torch.zeros(channels) if norm.bias is None else norm.bias.detach().float().clone()
        for name, values in (("weight", weight.contiguous()), ("scale", scale), ("shift", shift)):
            self.register_buffer(f"{name}_{i}", values)
        self._eps.append(norm.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape, channels last."""
        x = F.pad(x, (1, 1, 1, 1), mode="reflect").permute(0, 2, 3, 1).contiguous()
        for i in range(0, len(self._eps), 2):
            x = self._layer(i + 1, self._layer(i, x, None), x)
        return x[:, 1:-1, 1:-1].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _layer(self, i: int, x: Tensor, residual: Tensor | None) -> Tensor:
        weight, scale, shift = (self.get_buffer(f"{name}_{i}") for name in ("weight", "scale", "shift"))
        return cast(Tensor, conv_norm(x, weight, scale, shift, self._eps[i], residual))


def use_triton_trunk(module: InferenceGenerator, generator: GeneratorNetwork) -> InferenceGenerator:
    """Replace the residual blocks of `module`, which was made from `generator`, in place.

    Raises `BackendUnavailable` if the kernels do not fit this generator.
    """
    reason = unfit(generator.arch, module.dtype)
    if reason is not None:
        raise BackendUnavailable(f"The trunk in Triton needs {reason}; leave out --trunk triton.")
    assert isinstance(generator, ResnetGenerator)
    layers = list(module.body)
    at = [i for i, layer in enumerate(layers) if isinstance(layer, ResnetBlock)]
    blocks = [layer for layer in generator.model if isinstance(layer, ResnetBlock)]
    assert len(at) == len(blocks)
    trunk = TritonTrunk(blocks)
    module.body = nn.Sequential(*layers[: at[0]], trunk, *layers[at[-1] + 1 :]).eval()
    return module


def unfit(arch: Architecture, dtype: torch.dtype) -> str | None:
    """Return what the kernels need and a generator in `dtype` lacks, or None if they can compute its blocks."""
    channels = 4 * arch.ngf
    needs = {
        "a ResNet with residual blocks": arch.network == "resnet" and arch.blocks > 0,
        "fp16": dtype == torch.float16,
        "reflection padding": arch.padding == "reflect",
        "InstanceNorm without running statistics": arch.norm == "instance" and not arch.track_running_stats,
        f"ngf to be a power of two, at least {_LEAST_CHANNELS // 4}": channels >= _LEAST_CHANNELS
        and channels & (channels - 1) == 0,
    }
    return next((need for need, met in needs.items() if not met), None)
