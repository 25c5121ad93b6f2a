"""Triton kernels of `engine.runtime.backends.trunk`, which describes them.

Offsets within a tile fit into 32 bits; all others have 64.
"""

import triton
import triton.language as tl


@triton.jit
def pixels_before(row, W):
    """Return the number of pixels among rows 0 to `row` - 1 of an image; of W + 2 rows, the first W are pixels."""
    return row // (W + 2) * W + tl.minimum(row % (W + 2), W)


@triton.jit
def convolve(
    x, weight, made, sums, H, W, tiles,
    C: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Convolve padded x [N, H + 2, W + 2, C] with weight [9 C, C] to made [N, H, W, C]; sums is [N, tiles, 2, C]."""
    program = tl.program_id(0)
    column = program % (C // COLUMNS) * COLUMNS + tl.arange(0, COLUMNS)
    tile = program // (C // COLUMNS)
    image = (tile // tiles).to(tl.int64)
    width = W + 2
    first = tile % tiles * ROWS
    row = first + tl.arange(0, ROWS)
    depth = tl.arange(0, DEPTH)
    last = H * width - 3 - first  # rows behind the last pixel are not stored, and would be outside of x
    inside = tl.minimum(tl.arange(0, ROWS), last) * C
    x_rows = x + (image * (H + 2) * width + first) * C + inside[:, None] + depth[None, :]
    weight_rows = weight + (depth * C)[:, None] + column[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for step in tl.range(0, 9 * (C // DEPTH), num_stages=STAGES):
        tap = step // (C // DEPTH)
        shift = (tap // 3 * width + tap % 3) * C + step % (C // DEPTH) * DEPTH
        total = tl.dot(tl.load(x_rows + shift), tl.load(weight_rows + step * DEPTH * C), total)
    is_pixel = (row < H * width) & (row % width < W)
    half = total.to(made.dtype.element_ty)
    pixel = image * H * W + pixels_before(row, W)
    tl.store(made + pixel[:, None] * C + column[None, :], half, mask=is_pixel[:, None])
    value = tl.where(is_pixel[:, None], half.to(tl.float32), 0.0)
    added = tl.sum(value, 0)
    count = pixels_before(tl.minimum(first + ROWS, H * width), W) - pixels_before(first, W)
    deviation = tl.where(is_pixel[:, None], value - added[None, :] / count.to(tl.float32), 0.0)
    at = sums + tile.to(tl.int64) * 2 * C + column
    tl.store(at, added)
    tl.store(at + C, tl.sum(deviation * deviation, 0))


@triton.jit
def statistics(
    sums, norm_weight, norm_bias, scales, H, W, tiles, eps,
    C: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Combine sums [N, tiles, 2, C] into scales [N, 2, C]: the factor of each channel, and what is added to it.

    A program combines CHANNELS of an image, TILES of its tiles at once, because it mostly waits for memory.
    """
    image = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    rows = H * (W + 2)
    at = sums + image * tiles * 2 * C + channel[None, :]
    mean = tl.zeros((CHANNELS,), tl.float32)
    begin = 0
    while begin < tiles:  # the interpreter of Triton 3.6 has no loops over a range of arguments
        tile = begin + tl.arange(0, TILES)[:, None]
        mean += tl.sum(tl.load(at + tile * 2 * C, mask=tile < tiles, other=0.0), 0)
        begin += TILES
    mean = mean / (H * W)
    squares = tl.zeros((CHANNELS,), tl.float32)
    begin = 0
    while begin < tiles:
        tile = begin + tl.arange(0, TILES)[:, None]
        end = tl.minimum(tile * ROWS + ROWS, rows)
        count = tl.maximum(pixels_before(end, W) - pixels_before(tile * ROWS, W), 1).to(tl.float32)
        away = tl.load(at + tile * 2 * C, mask=tile < tiles, other=0.0) / count - mean[None, :]
        own = tl.load(at + tile * 2 * C + C, mask=tile < tiles, other=0.0)
        squares += tl.sum(tl.where(tile < tiles, own + count * away * away, 0.0), 0)
        begin += TILES
    scale = tl.load(norm_weight + channel) * tl.rsqrt(squares / (H * W) + eps)
    tl.store(scales + image * 2 * C + channel, scale)
    tl.store(scales + image * 2 * C + C + channel, tl.load(norm_bias + channel) - mean * scale)


@triton.jit
def apply(made, scales, residual, padded, H, W, C: tl.constexpr, ROWS: tl.constexpr, RESIDUAL: tl.constexpr):
    """Normalise made [N, H, W, C], then ReLU, or add residual [N, H + 2, W + 2, C]; store it padded by reflection."""
    width = W + 2
    blocks = tl.cdiv((H + 2) * width, ROWS)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, C)
    inside = (row < (H + 2) * width)[:, None]
    y = H - 1 - tl.abs(H - 1 - tl.abs(row // width - 1))
    x = W - 1 - tl.abs(W - 1 - tl.abs(row % width - 1))
    scale = tl.load(scales + image * 2 * C + channel)
    shift = tl.load(scales + image * 2 * C + C + channel)
    pixel = image * H * W + y * W + x
    value = tl.load(made + pixel[:, None] * C + channel[None, :], mask=inside).to(tl.float32)
    value = value * scale[None, :] + shift[None, :]
    at = (image * (H + 2) * width + row)[:, None] * C + channel[None, :]
    if RESIDUAL:
        value += tl.load(residual + at, mask=inside).to(tl.float32)
    else:
        value = tl.maximum(value, 0.0)
    tl.store(padded + at, value.to(padded.dtype.element_ty), mask=inside)
