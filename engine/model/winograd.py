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
activations are additions, which the compiler fuses with the norm before and the rounding after them.

Between the first and the last block, activations are kept as four images of every second row and column ("phases",
[2, 2, tile rows, tile columns, C]). Reflection by one pixel keeps the parity of a row, so each row of a tile comes from
one phase, whatever the size of the image. A compiler that has to handle every size finds no division in an index this
way: the positions come in as tables (`tile_table`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.model.card import Architecture
from engine.model.inference import FusedNorm, InferenceGenerator, moments
from engine.model.network import GeneratorNetwork, ResnetBlock
from engine.model.upsampling import folded_for_inference

_G = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))
# Row i of B^T d is d[_PLUS[i]] + sign * d[_OTHER[i]]; the sign is plus for i = 1 only.
_PLUS, _OTHER = (0, 1, 2, 1), (2, 2, 1, 3)
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


class WinogradGenerator(nn.Module):
    """An `InferenceGenerator` whose residual blocks are a `WinogradTrunk`; translates one image."""

    def __init__(self, generator: GeneratorNetwork, inference: InferenceGenerator) -> None:
        """Take the layers of `inference`, which was made from `generator`, and rewrite its residual blocks."""
        super().__init__()
        layers = list(inference.body)
        places = [place for place, layer in enumerate(layers) if isinstance(layer, ResnetBlock)]
        blocks = [layer for layer in folded_for_inference(generator).modules() if isinstance(layer, ResnetBlock)]
        self.down = nn.Sequential(*layers[: places[0]])
        self.trunk = WinogradTrunk(blocks, inference.dtype)
        self.up = nn.Sequential(*layers[places[-1] + 1 :])
        inference.body = nn.Sequential()
        self.rest = inference
        self.eval().requires_grad_(False)

    def forward(self, pixels_NHWC: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Translate uint8 [1, H, W, 3]; `rows` and `columns` are the `tile_table` of the sides after down-sampling."""
        x = self.trunk(self.down(self.rest.begin(pixels_NHWC)), rows, columns)
        return self.rest.finish(self.up(x.contiguous(memory_format=torch.channels_last)), pixels_NHWC)


class WinogradTrunk(nn.Module):
    """Residual blocks of one image; [1, C, H, W] in and out."""

    def __init__(self, blocks: list[ResnetBlock], dtype: torch.dtype) -> None:
        """Compute `blocks`, which have reflection padding, with products and stored activations in `dtype`."""
        super().__init__()
        self.layers = nn.ModuleList()
        for block in blocks:
            _, conv, norm, _, _, conv_2, norm_2 = block.conv_block
            self.layers.extend(WinogradLayer(*pair, dtype) for pair in ((conv, norm), (conv_2, norm_2)))
        self.signs = nn.Buffer(torch.tensor((-1.0, 1.0, -1.0, -1.0), dtype=dtype)[:, None, None])

    def forward(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Map [1, C, H, W]; `rows` and `columns` are the `tile_table` of H and of W."""
        x_HWC = x.permute(0, 2, 3, 1)[0]
        height, width, _ = x_HWC.shape
        place = _Place.of(rows, columns, height, width, self.signs)
        phases = x_HWC[rows[:2, None, :, None], columns[None, :2, None, :]]
        for first, second in zip(self.layers[::2], self.layers[1::2], strict=True):
            change = second(first(phases, place).relu(), place)
            # Stacked, so that the compiler stores the sum instead of adding up all blocks before in each reader.
            phases = torch.stack([phases[parity] + change[parity] for parity in (0, 1)])
        row, column = torch.arange(height)[:, None], torch.arange(width)
        return phases[row % 2, column % 2, row // 2, column // 2].permute(2, 0, 1)[None]


@dataclass(frozen=True)
class _Place:
    """Where the inputs of tiles are, and which outputs belong to the image."""

    rows: tuple[Tensor, Tensor]
    """Phase [4, 1] and row within it [4, tile rows] of each row of d."""
    plus: tuple[Tensor, Tensor]
    """Phase [4, 1] and column within it [4, tile columns] of the first summand of each column of B^T d B."""
    other: tuple[Tensor, Tensor]
    """The same of the second one."""
    signs: Tensor
    """Its sign, [4, 1, 1]."""
    valid: Tensor
    """1 for outputs within the image, else 0: float32 [2, 2, tile rows, tile columns, 1]."""
    pixels: int
    """Outputs within the image."""

    @classmethod
    def of(cls, rows: Tensor, columns: Tensor, height: int, width: int, signs: Tensor) -> _Place:
        phases, plus, other = (torch.tensor(values) for values in (_PHASES, _PLUS, _OTHER))
        row_valid, column_valid = _valid(rows, height), _valid(columns, width)
        return cls(
            rows=(phases[:, None], rows[2:]),
            plus=(phases[plus][:, None], columns[2:][plus]),
            other=(phases[other][:, None], columns[2:][other]),
            signs=signs,
            valid=(row_valid[:, None, :, None] * column_valid[None, :, None, :])[..., None],
            pixels=height * width,
        )


def _valid(table: Tensor, size: int) -> Tensor:
    tiles = torch.arange(table.shape[1])
    return (2 * tiles[None] + torch.arange(2)[:, None] < size).float()


class WinogradLayer(nn.Module):
    """A 3x3 convolution and its norm on phases."""

    def __init__(self, conv: nn.Module, norm: nn.Module, dtype: torch.dtype) -> None:
        """Compute `conv`, whose kernels are transformed in float64, and `norm`, an InstanceNorm or an identity."""
        super().__init__()
        assert isinstance(conv, nn.Conv2d)
        outputs, inputs, *_ = conv.weight.shape
        G = torch.tensor(_G, dtype=torch.float64)
        kernels = torch.einsum("ia,kcab,jb->ijck", G, conv.weight.detach().double().cpu(), G)
        self.kernels = nn.Buffer(kernels.reshape(16, inputs, outputs).to(dtype).contiguous())
        self.dtype = dtype
        self.norm: FusedNorm | None = None
        scale, shift = torch.ones(outputs), torch.zeros(outputs) if conv.bias is None else conv.bias.detach().float()
        if isinstance(norm, nn.InstanceNorm2d):
            fused = FusedNorm(norm)
            if fused.is_stored:
                scale, norm_shift = (values[0] for values in fused.stored_scale_and_shift())
                shift = norm_shift + shift * scale
            else:  # the bias cancels
                self.norm = fused
        self.scale, self.shift = nn.Buffer(scale.clone()), nn.Buffer(shift.clone())

    def forward(self, phases: Tensor, place: _Place) -> Tensor:
        """Map [2, 2, tile rows, tile columns, C] to the same with the outputs' channels."""
        row_phases, rows = place.rows
        sides, inputs, outputs = (rows.shape[1], place.plus[1].shape[1]), *self.kernels.shape[1:]
        d = phases[row_phases, :, rows]
        halves = (d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3])
        tiles = torch.cat([self._columns(half, place) for half in halves])
        products = torch.bmm(tiles.view(16, sides[0] * sides[1], inputs), self.kernels)
        m = products.view(4, 4, *sides, outputs)
        made = torch.stack([phase for half in _output_transform(m) for phase in _output_transform(half)])
        values = made.view(2, 2, *sides, outputs).float()
        scale, shift = (
            (self.scale, self.shift) if self.norm is None else self._scale_and_shift(self.norm, values, place)
        )
        return (values * scale + shift).to(self.dtype)

    @staticmethod
    def _columns(half: Tensor, place: _Place) -> Tensor:
        """Return a row of B^T d B, [4, tile rows, tile columns, C], of one of B^T d, [tile rows, 2, columns, C]."""
        (plus_phases, plus), (other_phases, other) = place.plus, place.other
        return (half[:, plus_phases, plus] + place.signs * half[:, other_phases, other]).transpose(0, 1)

    def _scale_and_shift(self, norm: FusedNorm, values: Tensor, place: _Place) -> tuple[Tensor, Tensor]:
        """Return those of an InstanceNorm for the statistics of the outputs within the image."""
        first = values[:1, :1, :1, :1]
        mean, variance = moments((values - first) * place.valid, self._sum, place.pixels)
        # Stacked, as in `FusedNorm`.
        scale, shift = torch.stack(norm.scale_and_shift(mean + first[0, 0, 0, 0], variance)).unbind()
        return scale, shift

    @staticmethod
    def _sum(values: Tensor) -> Tensor:
        return values.sum(3).sum((0, 1, 2))  # row by row, so that a compiler can split the rows among threads


def _output_transform(m: Tensor) -> tuple[Tensor, Tensor]:
    """Return A^T m."""
    return m[0] + m[1] + m[2], m[1] - m[2] - m[3]
