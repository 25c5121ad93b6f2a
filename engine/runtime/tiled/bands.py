"""The layers of a generator as functions on streams of bands.

A band is a tensor [1, C, rows, W] in channels-last memory format; a stream is an iterator of bands that together are
the rows of one image from top to bottom. Each function reads every row once and holds back only the few rows that the
next band needs, so a chain of layers computes no overlap twice. It yields an output row only after the input row at
the same position has been read, so a chain may overwrite its input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.inference import ConvByRows
from engine.model.upsampling import folded_kernel

Border = Literal["reflect", "repeat", "zero"]


def reflect_conv(conv: nn.Conv2d | ConvByRows, margin: int, bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """Apply `ReflectionPad2d(margin)` and `conv`; only the border of the image is padded."""
    kernel = conv.kernel_size[0]
    for window in windows(bands, kernel=kernel, top=margin, bottom=margin, border="reflect"):
        yield conv(F.pad(window.to(conv.weight.dtype), (margin, margin, 0, 0), mode="reflect"))


def down_conv(conv: nn.Conv2d, bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """Apply a 3x3 convolution of stride 2 and zero padding 1, which halves rows and columns."""
    for window in windows(bands, kernel=3, stride=2, top=1, bottom=1, border="zero"):
        yield F.conv2d(window.to(conv.weight.dtype), conv.weight, conv.bias, stride=2, padding=(0, 1))


def up_conv(layer: nn.Module, bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """Apply an up-sampling layer of either kind, which doubles rows and columns."""
    if isinstance(layer, nn.ConvTranspose2d):
        return _transposed_conv(layer, bands)
    assert isinstance(layer, nn.Sequential)
    _, _, conv = layer
    assert isinstance(conv, nn.Conv2d)
    return _resized_conv(conv, bands)


def _transposed_conv(conv: nn.ConvTranspose2d, bands: Iterable[Tensor]) -> Iterator[Tensor]:
    # Output rows 2i and 2i + 1 depend on input rows i and i + 1: the last row of a window yields no output of its own.
    for window in windows(bands, kernel=2, top=0, bottom=1, border="zero"):
        rows = 2 * (window.shape[2] - 1)
        enlarged = F.conv_transpose2d(window, conv.weight, conv.bias, stride=2, padding=1, output_padding=1)
        yield enlarged[:, :, :rows]


def _resized_conv(conv: nn.Conv2d, bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """Apply nearest-neighbour enlargement, `ReflectionPad2d(1)` and the 3x3 `conv` as one transposed convolution."""
    exact = torch.promote_types(conv.weight.dtype, torch.float32)
    weight = folded_kernel(conv.weight.to(exact)).to(conv.weight.dtype)
    for window in windows(bands, kernel=3, top=1, bottom=1, border="repeat"):
        padded = F.pad(window, (1, 1, 0, 0), mode="replicate")
        yield F.conv_transpose2d(padded, weight, conv.bias, stride=2, padding=3)


def windows(
    bands: Iterable[Tensor], *, kernel: int, stride: int = 1, top: int, bottom: int, border: Border
) -> Iterator[Tensor]:
    """Regroup bands into windows for a convolution without vertical padding.

    The image gets `top` and `bottom` rows of `border`, and neighbouring windows share `kernel - stride` rows, so that
    the convolution of all windows yields the rows of the convolution of the whole image.

    Raises `ValueError` for an image of fewer than `top + 1` rows.
    """
    held: Tensor | None = None
    started = False
    for band in bands:
        held = band if held is None else torch.cat((held, band), dim=2)
        if not started and held.shape[2] > top:
            held = torch.cat((_border(held, top, border, held[:, :, :1], slice(1, top + 1)), held), dim=2)
            started = True
        if started and held.shape[2] >= kernel:
            window, held = _split(held, kernel, stride)
            yield window
    if held is None or not started:
        raise ValueError(f"an image needs more than {top} rows to be extended by {top}")
    held = torch.cat((held, _border(held, bottom, border, held[:, :, -1:], slice(-bottom - 1, -1))), dim=2)
    if held.shape[2] >= kernel:
        yield _split(held, kernel, stride)[0]


def _border(band: Tensor, rows: int, border: Border, edge: Tensor, inside: slice) -> Tensor:
    """Return `rows` border rows next to the row `edge`; `inside` selects the rows to reflect, in image order."""
    if border == "reflect":
        return band[:, :, inside].flip(2)
    if border == "repeat":
        return edge.expand(-1, -1, rows, -1)
    return torch.zeros_like(edge).expand(-1, -1, rows, -1)


def _split(held: Tensor, kernel: int, stride: int) -> tuple[Tensor, Tensor]:
    outputs = (held.shape[2] - kernel) // stride + 1
    return held[:, :, : (outputs - 1) * stride + kernel], held[:, :, outputs * stride :]
