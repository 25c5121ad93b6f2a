"""The residual blocks of a ResNet generator by Winograd's minimal filtering, F(2x2, 3x3), for a compiler on a CPU.

A tile of 2x2 outputs takes 16 multiplications per pair of channels instead of 36: Lavin, Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016, section 4.1. With the 3x3 kernel g, the 4x4 input tile d and ^T for the
transpose,

    Y = A^T [ (G g G^T) * (B^T d B) ] A,        * element by element, summed over the input channels,

    B^T = [1  0 -1  0]      G = [ 1    0    0 ]      A^T = [1  1  1  0]
          [0  1  1  0]          [1/2  1/2  1/2]            [0  1 -1 -1]
          [0 -1  1  0]          [1/2 -1/2  1/2]
          [0  1  0 -1]          [ 0    0    1 ]

The sums over channels are 16 matrix products, one for each position in a tile: [tiles, C] x [C, K]. The transforms of
activations are additions, which the compiler fuses with the rounding after them.

Between the first and the last block, activations are kept as every second row and column ("phases"),
[tile rows, 2, 2, tile columns, C], where the twos are a row and a column within a tile. Reflection by one pixel keeps
the parity of a row, so each row of a tile comes from one phase, whatever the size of the image. A compiler that has to
handle every size finds no division in an index this way: the positions come in as tables (`tile_table`).

A convolution stores four times its input and four times its output. `WinogradGenerator` therefore computes it in bands
of tile rows. It consists of parts that are compiled one by one: all layers share those of the blocks, because their
weights are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from engine.model.card import Architecture
from engine.model.inference import FusedNorm, InferenceGenerator, moments
from engine.model.network import GeneratorNetwork, ResnetBlock
from engine.model.upsampling import folded_for_inference

Part = Literal["begin", "convolve", "activate", "add", "finish"]

BAND_BYTES = 8 << 20
"""Bytes of a convolution's input that are in memory at one time, four times as many as of its activations."""

_G = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
# Row i of B^T d is d[_PLUS[i]] + sign * d[_OTHER[i]]; the sign is plus for i = 1 only.
_PLUS, _OTHER, _SIGNS = (0, 1, 2, 1), (2, 2, 1, 3), (-1.0, 1.0, -1.0, -1.0)
# Rows 2t - 1, 2t, 2t + 1 and 2t + 2 of an image are tile t; of the phases of even and odd rows, these are:
_PHASES = (1, 0, 1, 0)


def unfit(arch: Architecture) -> str | None:
    """Return what the blocks of a generator need and `arch` lacks, or None if they can be computed this way."""
    needs = {
        "a ResNet": arch.network == "resnet",
        "reflection padding": arch.padding == "reflect",
    }
    return next((need for need, met in needs.items() if not met), None)


def tile_table(size: int) -> Tensor:
    """Return int64 [6, tiles] for a side of `size` rows or columns.

    For tile t: the rows 2t and 2t + 1 of the image, the last one repeated, and the rows within their phases of the
    tile's four inputs, the image being reflected at its border. Inputs of which no output is kept are any row.
    """
    even = torch.arange(0, size, 2)
    inputs = torch.stack((even - 1, even, even + 1, even + 2)).abs()
    inputs = torch.where(inputs < size, inputs, 2 * (size - 1) - inputs).clamp_min(0) // 2
    return torch.cat((torch.stack((even, even + 1)).clamp_max(size - 1), inputs))


class WinogradGenerator:
    """Translate one image with the `parts` of `winograd_parts`, as they are or compiled."""

    def __init__(self, parts: Mapping[Part, Callable[..., Any]], layers: list[WinogradLayer], stride: int) -> None:
        """Take the parts and layers of one generator, which down-samples by `stride`."""
        self._parts = parts
        self._layers = layers
        self._stride = stride

    def __call__(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [1, H, W, 3]; H and W are multiples of the stride."""
        rows, columns = (tile_table(side // self._stride) for side in pixels_NHWC.shape[1:3])
        phases = self._parts["begin"](pixels_NHWC, rows, columns)
        translated: Tensor = self._parts["finish"](self.blocks(phases, rows, columns), pixels_NHWC)
        return translated

    def blocks(self, phases: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Change the phases of an image to those behind the residual blocks.

        `rows` and `columns` are the `tile_table` of its sides.
        """
        valid = _valid(rows)[..., None, None, None], _valid(columns).T[..., None]
        row_bytes = 16 * columns.shape[1] * phases.shape[-1] * phases.element_size()
        bands = [band.contiguous() for band in torch.split(rows, max(1, BAND_BYTES // row_bytes), dim=1)]
        # For more than one band, maps are written where those of the block before were: new memory costs page faults.
        made, made_2 = (torch.empty_like(phases) if len(bands) > 1 else None for _ in range(2))
        for first, second in zip(self._layers[::2], self._layers[1::2], strict=True):
            values = self._convolve(phases, first.kernels, bands, columns, made)
            self._parts["activate"](values, *valid, first.scale, first.shift)
            values = self._convolve(values, second.kernels, bands, columns, made_2)
            self._parts["add"](phases, values, *valid, second.scale, second.shift)
        return phases

    def _convolve(
        self, phases: Tensor, kernels: Tensor, bands: list[Tensor], columns: Tensor, made: Tensor | None
    ) -> Tensor:
        if made is None:
            whole: Tensor = self._parts["convolve"](phases, kernels, bands[0], columns)
            return whole
        start = 0
        for rows in bands:
            made[start : start + rows.shape[1]] = self._parts["convolve"](phases, kernels, rows, columns)
            start += rows.shape[1]
        return made


def winograd_parts(generator: GeneratorNetwork, inference: InferenceGenerator) -> dict[Part, nn.Module]:
    """Return the parts of a `WinogradGenerator`; takes the layers of `inference`, which was made from `generator`."""
    layers = list(inference.body)
    places = [place for place, layer in enumerate(layers) if isinstance(layer, ResnetBlock)]
    blocks = _blocks(generator)
    inference.body = nn.Sequential()
    parts: dict[Part, nn.Module] = {
        "begin": Begin(inference, nn.Sequential(*layers[: places[0]])),
        "convolve": Convolve(),
        "activate": Activate(blocks[0].conv_block[2]),
        "add": Add(blocks[0].conv_block[2]),
        "finish": Finish(inference, nn.Sequential(*layers[places[-1] + 1 :]), generator.arch.stride),
    }
    return {name: part.eval().requires_grad_(False) for name, part in parts.items()}


def winograd_layers(generator: GeneratorNetwork, dtype: torch.dtype) -> list[WinogradLayer]:
    """Return the layers of the residual blocks of `generator`, two for each, with kernels in `dtype`."""
    layers: list[WinogradLayer] = []
    for block in _blocks(generator):
        _, conv, norm, _, _, conv_2, norm_2 = block.conv_block
        layers += [WinogradLayer.of(*pair, dtype) for pair in ((conv, norm), (conv_2, norm_2))]
    return layers


def _blocks(generator: GeneratorNetwork) -> list[ResnetBlock]:
    return [layer for layer in folded_for_inference(generator).modules() if isinstance(layer, ResnetBlock)]


@dataclass(frozen=True)
class WinogradLayer:
    """The weights of a 3x3 convolution and of the norm behind it."""

    kernels: Tensor
    """G g G^T, [16, C, K]."""
    scale: Tensor
    """Factor of each channel after the norm, float32 [K]; of a norm with stored statistics, the norm itself."""
    shift: Tensor
    """Summand of each channel, the convolution's bias included, float32 [K]."""

    @classmethod
    def of(cls, conv: nn.Module, norm: nn.Module, dtype: torch.dtype) -> WinogradLayer:
        """Transform the kernels of `conv` in float64 and store them in `dtype`; `norm` may be an identity."""
        assert isinstance(conv, nn.Conv2d)
        outputs, inputs, *_ = conv.weight.shape
        G = torch.tensor(_G, dtype=torch.float64)
        # One product of matrices, [16, 9] x [9, K * C], for both sides of the transform.
        kernels = torch.kron(G, G) @ conv.weight.detach().double().cpu().reshape(outputs * inputs, 9).T
        scale, shift = torch.ones(outputs), torch.zeros(outputs)
        if conv.bias is not None:
            shift += conv.bias.detach()
        if isinstance(norm, nn.InstanceNorm2d):
            fused = FusedNorm(norm)
            if fused.is_stored:
                scale, norm_shift = (values[0] for values in fused.stored_scale_and_shift())
                shift = norm_shift + shift * scale
            else:  # the convolution's bias cancels
                scale = scale if fused.weight is None else fused.weight
                shift = torch.zeros(outputs) if fused.bias is None else fused.bias
        return cls(kernels.to(dtype).reshape(16, outputs, inputs).mT.contiguous(), scale, shift)


class Begin(nn.Module):
    """The layers before the residual blocks."""

    def __init__(self, inference: InferenceGenerator, down: nn.Sequential) -> None:
        super().__init__()
        self.inference, self.down = inference, down

    def forward(self, pixels_NHWC: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Map uint8 [1, H, W, 3] and the `tile_table` of both sides after down-sampling to phases."""
        x_HWC = self.down(self.inference.begin(pixels_NHWC)).permute(0, 2, 3, 1)[0]
        return x_HWC[rows[:2].T[:, :, None, None], columns[:2]].contiguous()  # type: ignore[no-any-return]


class Convolve(nn.Module):
    """A 3x3 convolution without its bias."""

    def forward(self, phases: Tensor, kernels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Map phases of C channels to those of K channels.

        `kernels` are those of a `WinogradLayer`, `rows` the part of a `tile_table` for the tiles to compute, `columns`
        the whole table of the other side.
        """
        num_rows, num_columns = rows.shape[1], columns.shape[1]
        row_phases, plus, other = (torch.tensor(places) for places in (_PHASES, _PLUS, _OTHER))
        signs = torch.tensor(_SIGNS, dtype=phases.dtype)[:, None, None]
        d = phases[rows[2:], row_phases[:, None]]

        def columns_of(half: Tensor) -> Tensor:
            """Return a row of B^T d B, [4, tile rows, tile columns, C], of one of B^T d, [tile rows, 2, columns, C]."""
            first, second = (half[:, row_phases[which][:, None], columns[2:][which]] for which in (plus, other))
            return (first + signs * second).transpose(0, 1)

        halves = (d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3])
        tiles = torch.cat([columns_of(half) for half in halves])
        products = torch.bmm(tiles.view(16, num_rows * num_columns, phases.shape[-1]), kernels)
        m = products.view(4, 4, num_rows, num_columns, kernels.shape[-1])
        made = torch.stack([phase for half in _output_transform(m) for phase in _output_transform(half)], dim=1)
        return made.view(num_rows, 2, 2, num_columns, kernels.shape[-1])


def _output_transform(m: Tensor) -> tuple[Tensor, Tensor]:
    """Return A^T m."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]


class _Normalise(nn.Module):
    """The norm behind a convolution; statistics in float32."""

    def __init__(self, norm: nn.Module) -> None:
        """Compute what `norm` does, an InstanceNorm or an identity, but for its weights, which are arguments."""
        super().__init__()
        self.eps: float | None = None
        if isinstance(norm, nn.InstanceNorm2d) and not norm.track_running_stats:
            self.eps = norm.eps

    def _normalised(
        self, phases: Tensor, valid_rows: Tensor, valid_columns: Tensor, scale: Tensor, shift: Tensor
    ) -> Tensor:
        values = phases.float()
        if self.eps is not None:
            # Values are shifted by the first one, as in `FusedNorm`.
            first = values[:1, :1, :1, :1]
            num_pixels = valid_rows.sum() * valid_columns.sum()
            mean, variance = moments((values - first) * (valid_rows * valid_columns), _sum, num_pixels)
            factor = torch.rsqrt(variance + self.eps) * scale
            # Stacked, as in `FusedNorm`.
            scale, shift = torch.stack((factor, shift - (mean + first[0, 0, 0, 0]) * factor)).unbind()
        return values * scale + shift


class Activate(_Normalise):
    """The norm and the ReLU between two convolutions."""

    def forward(self, phases: Tensor, valid_rows: Tensor, valid_columns: Tensor, scale: Tensor, shift: Tensor) -> None:
        """Change the phases that a convolution made.

        `valid_rows`, float32 [tile rows, 2, 1, 1, 1], and `valid_columns`, [2, tile columns, 1], are 1 for rows and
        columns of the image and 0 for those beyond it; `scale` and `shift` are those of the `WinogradLayer`.
        """
        phases.copy_(self._normalised(phases, valid_rows, valid_columns, scale, shift).relu())


class Add(_Normalise):
    """The norm behind a block's second convolution and the sum with the block's input."""

    def forward(
        self,
        phases: Tensor,
        made: Tensor,
        valid_rows: Tensor,
        valid_columns: Tensor,
        scale: Tensor,
        shift: Tensor,
    ) -> None:
        """Change the phases of the block's input to those of its output; `made` is from the convolution."""
        phases.copy_(phases.float() + self._normalised(made, valid_rows, valid_columns, scale, shift))


class Finish(nn.Module):
    """The layers behind the residual blocks."""

    def __init__(self, inference: InferenceGenerator, up: nn.Sequential, stride: int) -> None:
        super().__init__()
        self.inference, self.up, self.stride = inference, up, stride

    def forward(self, phases: Tensor, pixels_NHWC: Tensor) -> Tensor:
        """Map the phases behind the last block and the image, uint8 [1, H, W, 3], to the translated image."""
        rows, columns = (torch.arange(side // self.stride) for side in pixels_NHWC.shape[1:3])
        x_HWC = phases[rows[:, None] // 2, rows[:, None] % 2, columns % 2, columns // 2]
        x = x_HWC.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
        return self.inference.finish(self.up(x), pixels_NHWC)


def _valid(table: Tensor) -> Tensor:
    """Return which outputs of each tile belong to the image, float32 [tiles, 2]: a repeated row does not."""
    return torch.stack((torch.ones_like(table[0]), table[1] - table[0]), dim=1).float()


def _sum(values: Tensor) -> Tensor:
    return values.sum(3).sum((0, 1, 2))  # row by row, so that a compiler can split the rows among threads
