"""Bring a translation made at working size back to the image's own size, with the image's own detail.

He, Sun: "Fast Guided Filter", arXiv:1505.00996, 2015, algorithm 2, with the colour guide of He, Sun, Tang: "Guided
Image Filtering", PAMI 2013, section 3.5. In every window of the working size, the translation is fitted as an affine
function of the image's colour,

    q = a^T I + b,    a = (Sigma + eps U)^-1 (1/|w| sum(I p) - mu p_mean),    b = p_mean - a^T mu,

with mean mu and covariance Sigma of the image's colour I, and identity U. The coefficients are averaged over windows,
enlarged bilinearly and applied to the image at full size: an edge stays where and as sharp as it is, whatever the
translation does to its colours.

Two things differ from the papers. p is not the translation but what it changes, and I is added to q: where a window has
too little contrast to fit, `eps` then keeps the detail instead of smoothing it. And pixels near strong edges count
little. A generator draws a rim some pixels wide along such edges; enlarged, it would be a band of 50 to 70 pixels. The
fit takes the colours from beyond the rim, through a second, wide window that counts where the first one holds little
weight. In texture all weights are alike, and the fit is the one of the papers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.codec.geometry import plain_upsample, resize
from engine.records import DecodedImage, Failed, Record
from engine.system.threads import one_thread

CELL = 2
"""Side in pixels, at working size, of the cells whose averages are fitted; the coefficients are smoother than that."""
RADIUS = 1
"""Cells from the middle of a window to its side."""
EPS = 2e-4
"""Colour variance, in units of the full range squared, below which the image's detail is left as it is: a contrast of 7
levels of 255. An edge of less contrast that separates two changes shows a soft band, as wide as the windows."""
RIM = 8
"""Pixels at working size on each side of a strong edge that count little."""
STRONG_EDGE = 0.15
"""Difference between neighbours, as a share of the full range, at which a pixel counts half."""
LEAST_WEIGHT = 1e-3
"""Weight of a pixel on the strongest edge."""
WIDE_RADIUS = 5
"""Pairs of cells from the middle of the wide window to its side."""
WIDE_SHARE = 0.1
"""Share of the wide window in the fit where all pixels count alike."""
BAND_BYTES = 2 << 20
"""Size of the colours and results in flight; more than a core's own cache holds takes longer."""
LEAST_BAND_PIXELS = 1024
"""Pixels from one row of coefficients to the next below which many of these rows are applied in one call: in narrow
images, calls take longer than their arithmetic."""

_PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Entries of a symmetric 3x3 matrix that are computed."""


@torch.inference_mode()
def guided_upsample(
    photo_HWC: Tensor,
    working_hwc: Tensor,
    translated_hwc: Tensor,
    *,
    alpha_hw: Tensor | None = None,
    overwrite: bool = False,
) -> Tensor:
    """Return the translation of `photo_HWC`, uint8 or uint16 [H, W, 3], at its own size and depth.

    Args:
        photo_HWC: The image at its own size.
        working_hwc: The image at working size as the generator saw it, uint8 [h, w, 3].
        translated_hwc: What the generator made of it, uint8 [h, w, 3].
        alpha_hw: Opacity at working size, uint8 [h, w]; transparent pixels do not count. None where all is opaque.
        overwrite: Put the result into the memory of `photo_HWC` and return that.

    Raises:
        ValueError: `working_hwc` and `translated_hwc` differ in shape.
    """
    if working_hwc.shape != translated_hwc.shape:
        raise ValueError(f"sizes differ: {tuple(working_hwc.shape) = }, {tuple(translated_hwc.shape) = }")
    guide = _planes(working_hwc)
    weights = edge_weights(guide)
    if alpha_hw is not None:
        weights.mul_(alpha_hw.float().div_(255.0).clamp_(min=LEAST_WEIGHT))
    coefficients = fit(guide, _planes(translated_hwc) - guide, weights)
    coefficients[:, :3].diagonal().add_(1.0)  # the change, added to the photo
    return apply(coefficients, photo_HWC, photo_HWC if overwrite else torch.empty_like(photo_HWC))


def edge_weights(guide: Tensor) -> Tensor:
    """Return the weight of each pixel of `guide` [3, h, w] in the fit, [h, w]: little near strong edges."""
    contrast = (_highest(guide, 1) + _highest(-guide, 1)).amax(0)
    return _highest(contrast, RIM).div_(STRONG_EDGE).pow_(4).add_(1.0).reciprocal_().add_(LEAST_WEIGHT)


def fit(guide: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Fit `target` [3, h, w] as an affine function of `guide` [3, h, w], both in [0, 1], around every cell.

    Returns [3, 4, h / CELL, w / CELL], averaged over windows: for each output channel its weights of red, green and
    blue, and a constant.
    """
    height, width = weights.shape
    moments = torch.empty((22, height, width))
    moments[0] = weights
    torch.mul(guide, weights, out=moments[1:4])
    torch.mul(target, weights, out=moments[4:7])
    for row, (j, k) in enumerate(_PAIRS):
        torch.mul(guide[j], moments[1 + k], out=moments[7 + row])
    torch.mul(target[:, None], moments[None, 1:4], out=moments[13:].view(3, 3, height, width))
    moments = _windows(_cells(moments))
    height, width = moments.shape[1:]
    total = moments[0]
    means = moments[1:].div_(total)
    mean_guide, mean_target = means[:3], means[3:6]
    covariance = {pair: means[6 + row] - mean_guide[pair[0]] * mean_guide[pair[1]] for row, pair in enumerate(_PAIRS)}
    for j in range(3):
        covariance[j, j].add_(EPS)
    joint = means[12:].view(3, 3, height, width).sub_(mean_target[:, None] * mean_guide[None])
    coefficients = torch.empty((13, height, width))
    coefficients[12] = total
    fitted = coefficients[:12].view(3, 4, height, width)
    _solve(covariance, joint, fitted)
    torch.sub(mean_target, (fitted[:, :3] * mean_guide[None]).sum(1), out=fitted[:, 3])
    coefficients[:12].mul_(total)
    averaged = _box(coefficients, RADIUS)
    return averaged[:12].div_(averaged[12]).view(3, 4, height, width)


def apply(coefficients: Tensor, photo_HWC: Tensor, out_HWC: Tensor) -> Tensor:
    """Enlarge `coefficients` [3, 4, h, w] bilinearly to the size of an image and apply them to it.

    `photo_HWC` is uint8 or uint16 [H, W, 3]; so is `out_HWC`, which may be the same memory and is returned.
    """
    height, width, _ = photo_HWC.shape
    white = 255 if photo_HWC.dtype == torch.uint8 else 65535
    factors = coefficients.permute(2, 1, 0, 3).contiguous()  # [h, 4, 3, w]: all outputs of one factor together
    factors[:, 3].mul_(float(white)).add_(0.5)  # levels, and rounding to nearest by cutting off
    rows = _bilinear_rows(len(factors), height)
    pixels = -(-height // len(factors)) * width  # from one row of coefficients to the next
    bands = _by_coefficient_rows if pixels >= LEAST_BAND_PIXELS else _by_pixel_rows
    for band, value in bands(factors, rows, photo_HWC):
        out_HWC[band] = value.clamp_(0, white).to(photo_HWC.dtype).permute(1, 2, 0)
    return out_HWC


def _by_coefficient_rows(factors: Tensor, rows: _BilinearRows, photo_HWC: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield bands of rows and their values [3, rows, W], one or more bands for each row of factors [h, 4, 3, w].

    Each row of factors is enlarged once, and what it makes of the colours is interpolated, not itself.
    """
    width = photo_HWC.shape[1]
    widened: dict[int, Tensor] = {}
    for band in _bands(rows.upper.tolist(), max(1, BAND_BYTES // (9 * 4 * width))):
        pair = int(rows.upper[band.start]), int(rows.lower[band.start])
        widened = {
            row: widened[row] if row in widened else F.interpolate(factors[row], size=width, mode="linear")[:, :, None]
            for row in pair
        }
        above, below = (widened[row] for row in pair)
        colours = photo_HWC[band].permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        value = _weighted(above, colours)
        yield band, value.addcmul_(_weighted(below - above, colours), rows.share[band, None])


def _by_pixel_rows(factors: Tensor, rows: _BilinearRows, photo_HWC: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the same values as `_by_coefficient_rows`, in bands that span any number of rows of factors.

    The factors of each row of the image are copied, which takes longer where the image is wide.
    """
    height, width, _ = photo_HWC.shape
    most = max(1, BAND_BYTES // (42 * 4 * width))
    for start in range(0, height, most):
        band = slice(start, min(height, start + most))
        upper, lower = rows.upper[band], rows.lower[band]
        first, last = int(upper[0]), int(lower[-1])
        needed = factors[first : last + 1].flatten(0, 1)
        widened = F.interpolate(needed, size=width, mode="linear").view(-1, 4, 3, width).permute(1, 2, 0, 3)
        above = widened[:, :, upper - first]
        slope = widened[:, :, lower - first].sub_(above)
        colours = photo_HWC[band].permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        value = _weighted(above, colours)
        yield band, value.addcmul_(_weighted(slope, colours), rows.share[band, None])


def _weighted(factors: Tensor, colours: Tensor) -> Tensor:
    """Return for each output its factors [4, 3, rows or 1, W] applied to colours [3, rows, W]: [3, rows, W]."""
    value = torch.addcmul(factors[3], factors[0], colours[0])
    return value.addcmul_(factors[1], colours[1]).addcmul_(factors[2], colours[2])


def _bands(upper: list[int], most: int) -> Iterator[slice]:
    """Split rows into runs of the same input row above, of at most `most` rows."""
    first = 0
    for row in range(1, len(upper) + 1):
        if row == len(upper) or upper[row] != upper[first] or row - first == most:
            yield slice(first, row)
            first = row


def restore(
    records: list[Record[DecodedImage] | Failed], keeps: Callable[[str], bool] = lambda _: True
) -> list[Record[DecodedImage] | Failed]:
    """Enlarge each image that carries itself at full size, and bring back its depth; leave the others as they are.

    `guided` takes colours from the translation and detail from the image, `plain` interpolates the translation. Where
    `keeps` returns False for a key, the result takes the memory of the image at full size, which is lost.
    """
    with one_thread():
        return [
            record
            if isinstance(record, Failed)
            else record.replace(_restored(record.payload, record.options.detail, keeps(record.key)))
            for record in records
        ]


def _restored(picture: DecodedImage, way: str, keep: bool) -> DecodedImage:
    full_HWC, before_HWC, deep_HWC = picture.full_HWC, picture.before_HWC, picture.deep_HWC
    if before_HWC is None:
        return picture
    if full_HWC is None:
        return picture if deep_HWC is None else replace(picture, deep_HWC=_with_depth(picture, before_HWC, deep_HWC))
    height, width = full_HWC.shape[:2]
    if way == "guided":
        alpha_hw = None
        if picture.alpha_HW is not None:
            alpha_hw = resize(picture.alpha_HW[..., None], picture.width, picture.height)[..., 0]
        photo_HWC = full_HWC if deep_HWC is None else deep_HWC
        pixels_HWC = guided_upsample(photo_HWC, before_HWC, picture.pixels_HWC, alpha_hw=alpha_hw, overwrite=not keep)
    elif deep_HWC is None:
        pixels_HWC = plain_upsample(picture.pixels_HWC, height, width)
    else:
        enlarged = plain_upsample(picture.pixels_HWC.float(), height, width)
        pixels_HWC = enlarged.mul_(257.0).add_(0.5).clamp_(0, 65535).to(torch.uint16)
    if deep_HWC is not None:
        picture = replace(picture, deep_HWC=pixels_HWC)
        pixels_HWC = _to_8_bits(pixels_HWC, torch.empty_like(full_HWC) if keep else full_HWC)
    return replace(picture, pixels_HWC=pixels_HWC, full_HWC=None, before_HWC=full_HWC if keep else None)


def _to_8_bits(deep_HWC: Tensor, out_HWC: Tensor) -> Tensor:
    """Round uint16 [H, W, 3] into uint8 `out_HWC`, and return that."""
    for band in _row_bands(deep_HWC):
        out_HWC[band] = (deep_HWC[band].float() / 257.0 + 0.5).to(torch.uint8)
    return out_HWC


def _with_depth(picture: DecodedImage, before_HWC: Tensor, deep_HWC: Tensor) -> Tensor:
    """Return the translation, made of 8 bits, with what these 8 bits left out of the image: uint16 [H, W, 3]."""
    result = torch.empty_like(deep_HWC)
    for band in _row_bands(deep_HWC):
        left_out = deep_HWC[band].to(torch.int32) - before_HWC[band].to(torch.int32) * 257
        result[band] = (picture.pixels_HWC[band].to(torch.int32) * 257 + left_out).clamp_(0, 65535).to(torch.uint16)
    return result


def _row_bands(pixels_HWC: Tensor) -> Iterator[slice]:
    """Split the rows of [H, W, 3] into bands whose values take `BAND_BYTES` in 32 bits."""
    height, width, _ = pixels_HWC.shape
    rows = max(1, BAND_BYTES // (3 * 4 * width))
    for start in range(0, height, rows):
        yield slice(start, start + rows)


def _planes(pixels_hwc: Tensor) -> Tensor:
    return pixels_hwc.permute(2, 0, 1).float().div_(255.0).contiguous()


def _cells(planes: Tensor) -> Tensor:
    """Average [N, h, w] over cells of 2x2 pixels; those at the far borders may be cut off."""
    return F.avg_pool2d(planes[None], CELL, ceil_mode=True, count_include_pad=False)[0]


def _windows(cells: Tensor) -> Tensor:
    """Average [N, h, w] over the window of `RADIUS`, and by `WIDE_SHARE` over the wide one."""
    wide = _box(_cells(cells), WIDE_RADIUS)
    wide = F.interpolate(wide[None], size=cells.shape[-2:], mode="bilinear")[0]
    return torch.lerp(_box(cells, RADIUS), wide, WIDE_SHARE)


def _box(planes: Tensor, radius: int) -> Tensor:
    """Average [N, h, w] over windows, cut off at the border of the image.

    Sums of shifted planes: the same values as `avg_pool2d`, which computes one value at a time, in a fifth of the time.
    """
    for axis in (-1, -2):
        size = planes.shape[axis]
        padded = F.pad(planes, _around(radius, axis))
        total = padded.narrow(axis, 0, size).clone()
        for shift in range(1, 2 * radius + 1):
            total.add_(padded.narrow(axis, shift, size))
        at = torch.arange(size)
        counts = ((at + radius).clamp_(max=size - 1) - (at - radius).clamp_(min=0) + 1).float()
        planes = total.div_(counts if axis == -1 else counts[:, None])
    return planes


def _highest(planes: Tensor, radius: int) -> Tensor:
    """Return the maximum of each window of [..., h, w], cut off at the border of the image.

    The same values as `max_pool2d`, in a tenth of the time.
    """
    for axis in (-1, -2):
        planes = F.pad(planes, _around(radius, axis), value=-torch.inf)
        covered, whole = 1, 2 * radius + 1
        while covered < whole:  # two windows that overlap or touch make one that is up to twice as wide
            shift = min(covered, whole - covered)
            size = planes.shape[axis] - shift
            planes = torch.maximum(planes.narrow(axis, 0, size), planes.narrow(axis, shift, size))
            covered += shift
    return planes


def _around(radius: int, axis: int) -> list[int]:
    """Return what `F.pad` takes to add `radius` values at both ends of the last axis (-1) or the one before (-2)."""
    return [radius, radius, 0, 0] if axis == -1 else [0, 0, radius, radius]


def _solve(matrix: dict[tuple[int, int], Tensor], right: Tensor, out: Tensor) -> None:
    """Solve symmetric 3x3 systems for `right` [3, 3, h, w], into the first three columns of `out` [3, 4, h, w]."""
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    d, e, f = matrix[1, 1], matrix[1, 2], matrix[2, 2]
    cofactors = {
        (0, 0): d * f - e * e,
        (0, 1): c * e - b * f,
        (0, 2): b * e - c * d,
        (1, 1): a * f - c * c,
        (1, 2): b * c - a * e,
        (2, 2): a * d - b * b,
    }
    scale = (a * cofactors[0, 0] + b * cofactors[0, 1] + c * cofactors[0, 2]).reciprocal_()
    for cofactor in cofactors.values():
        cofactor.mul_(scale)
    for row in range(3):
        torch.mul(right[:, 0], cofactors[min(row, 0), max(row, 0)], out=out[:, row])
        for column in (1, 2):
            out[:, row].addcmul_(right[:, column], cofactors[min(row, column), max(row, column)])


class _BilinearRows(NamedTuple):
    """For each output row, the input rows above and below it and the share of the lower one."""

    upper: Tensor
    lower: Tensor
    share: Tensor


def _bilinear_rows(size_in: int, size_out: int) -> _BilinearRows:
    position = ((torch.arange(size_out) + 0.5) * (size_in / size_out) - 0.5).clamp(0, size_in - 1)
    upper = position.floor().long()
    return _BilinearRows(upper, (upper + 1).clamp(max=size_in - 1), position - upper)
