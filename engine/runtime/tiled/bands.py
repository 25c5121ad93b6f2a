"""The layers of a generator as functions on streams of bands.

A band is a tensor [1, C, rows, W] in channels-last memory format; a stream is an iterator of bands that together are
the rows of one image from top to bottom. Each function reads every row once and holds back only the few rows that the
next band needs, so a chain of layers computes no overlap twice. It yields an output row only after the input row at
the same position has been read, so a chain may overwrite its input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.inference import ConvByRows
from engine.model.layers import BlurDown, BlurUp
from engine.model.upsampling import folded_kernel

Border = Literal["reflect", "repeat", "zero"]
_MODES: dict[Border, str] = {"reflect": "reflect", "repeat": "replicate", "zero": "constant"}


def padded_conv(
    conv: nn.Conv2d | ConvByRows, margin: int, bands: Iterable[Tensor], border: Border = "reflect"
) -> Iterator[Tensor]:
    """Extend the image by `margin` pixels of `border` and apply `conv`, whose own padding is not used."""
    kernel = conv.kernel_size[0]
    stride = conv.stride[0] if isinstance(conv, nn.Conv2d) else 1
    for window in windows(bands, kernel=kernel, stride=stride, top=margin, bottom=margin, border=border):
        typed = window.to(conv.weight.dtype)
        if not isinstance(conv, nn.Conv2d):
            yield conv(_pad_columns(typed, margin, border))
        elif border == "zero":
            yield F.conv2d(typed, conv.weight, conv.bias, stride, padding=(0, margin))
        else:
            yield F.conv2d(_pad_columns(typed, margin, border), conv.weight, conv.bias, stride)


def blur_down(layer: BlurDown, bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """Apply a low-pass filter that halves rows and columns."""
    for window in windows(bands, kernel=3, stride=2, top=1, bottom=1, border="reflect"):
        yield F.conv2d(_pad_columns(window, 1, "reflect"), layer.filt, stride=2, groups=window.shape[1])


def up_conv(layers: Sequence[nn.Module], bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """Apply the layers of an up-sampling of any kind, which doubles rows and columns."""
    first, last = layers[0], layers[-1]
    if isinstance(first, nn.ConvTranspose2d):
        return _transposed_conv(first, bands)
    if isinstance(first, nn.Sequential):
        return _enlarged_conv(_conv(first[-1]), "repeat", bands)
    if isinstance(first, BlurUp):
        return padded_conv(_conv(last), 1, _blur_up(first, bands), "zero")
    return _enlarged_conv(_conv(last), "zero", bands)


def _transposed_conv(conv: nn.ConvTranspose2d, bands: Iterable[Tensor]) -> Iterator[Tensor]:
    # Output rows 2i and 2i + 1 depend on input rows i and i + 1: the last row of a window yields no output of its own.
    for window in windows(bands, kernel=2, top=0, bottom=1, border="zero"):
        rows = 2 * (window.shape[2] - 1)
        enlarged = F.conv_transpose2d(window, conv.weight, conv.bias, stride=2, padding=1, output_padding=1)
        yield enlarged[:, :, :rows]


def _enlarged_conv(conv: nn.Conv2d, border: Border, bands: Iterable[Tensor]) -> Iterator[Tensor]:
    """Apply nearest-neighbour enlargement and the 3x3 `conv` as one transposed convolution.

    `border` is that of the small image: repeated where the enlarged one is reflected by one pixel.
    """
    exact = torch.promote_types(conv.weight.dtype, torch.float32)
    weight = folded_kernel(conv.weight.to(exact)).to(conv.weight.dtype)
    for window in windows(bands, kernel=3, top=1, bottom=1, border=border):
        yield F.conv_transpose2d(_pad_columns(window, 1, border), weight, conv.bias, stride=2, padding=3)


def _blur_up(layer: BlurUp, bands: Iterable[Tensor]) -> Iterator[Tensor]:
    for window in windows(bands, kernel=3, top=1, bottom=1, border="repeat"):
        padded = _pad_columns(window, 1, "repeat")
        yield F.conv_transpose2d(padded, layer.filt, stride=2, padding=3, groups=window.shape[1])


def _pad_columns(window: Tensor, margin: int, border: Border) -> Tensor:
    return F.pad(window, (margin, margin, 0, 0), mode=_MODES[border])


def _conv(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    return layer


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
