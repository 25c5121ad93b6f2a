"""Translate an image of any size in bounded memory, with the result of translating the whole image.

The image passes through the generator in bands of its full width, segment by segment. A segment ends at each
InstanceNorm: its raw output is stored while the statistics of the whole image accumulate, and is normalised when the
next segment reads it. Two tables at a quarter of the image's height and width hold all stored activations; each segment
writes where it has just read. At half size a row has as many values as at a quarter; even rows are stored in the first
table and odd rows in the second. At full size nothing is stored: the first convolution and the last up-sampling are
cheap and are computed twice, once for statistics and once for values. Norms without statistics of the image save that
first time.

A U-Net has no bands: its innermost level sees the whole image at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from engine.errors import SkipImage
from engine.model.card import Architecture
from engine.model.folding import fold_batch_norm
from engine.model.inference import ConvByRows
from engine.model.layers import BlurDown
from engine.model.network import ResnetBlock, ResnetGenerator
from engine.model.pixels import CENTRED_SCALE, to_centred, to_network, to_pixels
from engine.runtime.tiled.bands import Border, blur_down, padded_conv, up_conv
from engine.runtime.tiled.norm import WholeImageNorm
from engine.runtime.tiled.scratch import FileScratch, HalfView, MemoryScratch, QuarterView, Scratch

BAND_BYTES = 16 << 20
"""Bytes of a band of activations at full size, if the budget allows it; larger bands do not fit the caches."""
BANDS_IN_FLIGHT = 18
"""Bands of that size in memory at one time, including work space of operators: measured, checked by a test."""
WHOLE_MAPS = {"transpose": 3.5, "resize": 5.5, "nearest": 5.5, "blur": 7.0}
"""Full-size maps of `ngf` channels in memory at the peak of a whole-image translation, by kind of up-sampling: measured
in eager mode with contiguous weights. Channels-last weights save half a map; inductor needs 2.3 and 3.8 for the first
two."""
WHOLE_MAPS_BLUR_DOWN = 6.0
"""The same for filtered down-sampling, if that is more."""
WHOLE_MAPS_UNET = 2.2
"""The same for a U-Net, whose widest map has half the height and width. Half of it is memory that the allocator keeps
between maps of different sizes (`engine.system.allocator`)."""
WHOLE_FIXED_BYTES, TILED_FIXED_BYTES = 128 << 20, 32 << 20
"""Bytes needed at any size: packed weights, work space of convolutions, memory held by the allocator."""


def whole_image_bytes(arch: Architecture, height: int, width: int, dtype: torch.dtype) -> int:
    """Return the bytes needed to translate one image of `height` x `width` pixels at once, result included."""
    values_per_pixel = _whole_maps(arch) * arch.ngf + 4  # 4: network input and output, pixels
    return int(height * width * values_per_pixel * dtype.itemsize) + WHOLE_FIXED_BYTES


def _whole_maps(arch: Architecture) -> float:
    if arch.network == "unet":
        return WHOLE_MAPS_UNET
    return max(WHOLE_MAPS[arch.upsample], WHOLE_MAPS_BLUR_DOWN if arch.downsample == "blur" else 0.0)


def require_memory(arch: Architecture, height: int, width: int, dtype: torch.dtype, *, budget_bytes: int) -> None:
    """Raise `SkipImage` if an image of `height` x `width` pixels cannot be translated within `budget_bytes`.

    The sides are those after padding, multiples of the generator's stride.
    """
    if arch.network != "unet":
        plan_tiles(arch, height, width, dtype, budget_bytes=budget_bytes)
        return
    needed_bytes = whole_image_bytes(arch, height, width, dtype)
    if needed_bytes > budget_bytes:
        raise whole_only(height, width, needed_bytes, budget_bytes)


def whole_only(height: int, width: int, needed_bytes: int, budget_bytes: int) -> SkipImage:
    """Return the failure for an image that is too large for a U-Net."""
    return SkipImage(
        f"A photo of {width}x{height} pixels does not fit into memory: a U-Net translates whole images only, which "
        f"takes about {-(-needed_bytes // 1_000_000)} MB, and {budget_bytes // 1_000_000} MB are allowed; allow more "
        "memory, or choose a smaller size."
    )


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """Band heights for one image within a memory budget."""

    quarter_rows: int
    """Rows of a band in the passes at a quarter of the image's size."""
    full_rows: int
    """Rows of a band in the passes that reach full size, counted at a quarter: each is 4 rows of the image."""
    in_file: bool
    """Store the tables of activations in a temporary file instead of memory."""


def plan_tiles(arch: Architecture, height: int, width: int, dtype: torch.dtype, *, budget_bytes: int) -> TilePlan:
    """Choose band heights and table storage for an image of `height` x `width` pixels (multiples of 4).

    Raises `SkipImage` if not even bands of 4 rows fit into `budget_bytes`.
    """
    # Of one row, at full size as at a quarter; filters at full size have twice the channels.
    row_bytes = width * arch.ngf * dtype.itemsize * (2 if "blur" in (arch.downsample, arch.upsample) else 1)
    narrowest = BANDS_IN_FLIGHT * 2 * 4 * row_bytes  # doubled for the rows that short bands hold back
    fixed_bytes = height * width * 3 + TILED_FIXED_BYTES
    spare_bytes = budget_bytes - fixed_bytes
    in_file = spare_bytes < tables_bytes(arch, height, width, dtype) + narrowest
    if not in_file:
        spare_bytes -= tables_bytes(arch, height, width, dtype)
    if spare_bytes < narrowest:
        needed_mb = -(-(narrowest + fixed_bytes) // 1_000_000)
        raise SkipImage(
            f"A photo of {width}x{height} pixels needs {needed_mb} MB of memory even in tiles; allow more "
            "memory, or choose a smaller size."
        )
    band_bytes = min(BAND_BYTES, spare_bytes // BANDS_IN_FLIGHT - 4 * row_bytes)
    return TilePlan(
        quarter_rows=max(1, band_bytes // row_bytes),
        full_rows=max(1, band_bytes // (4 * row_bytes)),
        in_file=in_file,
    )


def tables_bytes(arch: Architecture, height: int, width: int, dtype: torch.dtype) -> int:
    """Return the size of both tables of activations together."""
    return 2 * (height // 4) * width * arch.ngf * dtype.itemsize


def cast_layers(module: ResnetGenerator, dtype: torch.dtype, outer_dtype: torch.dtype) -> ResnetGenerator:
    """Return a copy of `module` in `dtype` without BatchNorm, its first and last convolution in `outer_dtype`."""
    exact = fold_batch_norm(module)
    assert isinstance(exact, ResnetGenerator)
    typed = copy.deepcopy(exact).to(dtype)
    for place in (1, -2):
        typed.model[place] = exact.model[place].to(outer_dtype)
    return typed


def translate_tiled(
    module: ResnetGenerator,
    pixels_HWC: Tensor,
    *,
    budget_bytes: int,
    spill_folder: Path | None = None,
) -> Tensor:
    """Translate uint8 [H, W, 3] to the same, in the dtypes and on the device of `module`'s weights.

    H and W must be multiples of 4 and at least 16; the caller pads other images by reflection and crops the result, as
    for a whole image. Memory beyond the arguments, result included, stays below `budget_bytes`. If the two tables do
    not fit, they are stored in a file in `spill_folder` (default: the system's folder for temporary files). Raises
    `SkipImage` if the budget or that disk is too small.
    """
    height, width, _ = pixels_HWC.shape
    dtype = next(module.parameters()).dtype
    plan = plan_tiles(module.arch, height, width, dtype, budget_bytes=budget_bytes)
    translated = torch.empty_like(pixels_HWC)
    first = 0
    for band in translated_bands(module, pixels_HWC, plan, spill_folder):
        rows = to_pixels(band)[0]
        translated[first : first + len(rows)] = rows
        first += len(rows)
    return translated


@torch.inference_mode()
def translated_bands(
    module: ResnetGenerator, pixels_HWC: Tensor, plan: TilePlan, spill_folder: Path | None = None
) -> Iterator[Tensor]:
    """Yield the translation of uint8 [H, W, 3] in bands [1, C, rows, W] in [-1, 1], from top to bottom."""
    height, width, channels = pixels_HWC.shape
    if height % 4 or width % 4 or min(height, width) < 16 or channels != 3:
        raise ValueError(f"height and width must be multiples of 4 from 16, got {tuple(pixels_HWC.shape) = }")
    net = _Layers(module)
    weight = next(module.parameters())
    dtype = net.dtype

    def photo() -> Iterator[Tensor]:
        for first in range(0, height, 4 * plan.full_rows):
            rows = pixels_HWC[None, first : first + 4 * plan.full_rows].to(weight.device)
            yield net.to_input(rows, weight.dtype)

    shape = (height // 4, width * module.arch.ngf)
    with ExitStack() as stack:
        tables = [stack.enter_context(_scratch(plan.in_file, shape, dtype, spill_folder)) for _ in range(2)]
        kept, raw = (QuarterView(table, shape[0], width // 4, plan.quarter_rows, weight.device) for table in tables)
        half = HalfView(tables[0], tables[1], shape[0], width // 2, plan.full_rows, weight.device)

        def head() -> Iterator[Tensor]:
            return _relu(net.head_norm.normalise(net.head(photo())))

        net.head_norm.measure(lambda: net.head(photo()))
        first, second = net.downs
        if first.blur is None or second.blur is None:
            half.write_all(first.norm.watch(first.conv(head())))
            kept.write_all(second.norm.watch(second.conv(_relu(first.norm.normalise(half.bands())))))
            stream = _relu(second.norm.normalise(kept.bands()))
        else:
            # An ordinary convolution before the filter has no room in the tables: it is computed twice.
            first.norm.measure(lambda: first.conv(head()))
            half.write_all(first.blur(_relu(first.norm.normalise(first.conv(head())))))
            second.norm.measure(lambda: second.conv(half.bands()))
            kept.write_all(second.blur(_relu(second.norm.normalise(second.conv(half.bands())))))
            stream = kept.bands()
        for block in net.blocks:
            raw.write_all(block.first_norm.watch(block.first(kept.write_and_pass(stream))))
            raw.write_all(block.second_norm.watch(block.second(_relu(block.first_norm.normalise(raw.bands())))))
            stream = _sum(kept.bands(), block.second_norm.normalise(raw.bands()))
        half.write_all(net.up_norms[0].watch(net.ups[0](stream)))

        def full() -> Iterator[Tensor]:
            return net.ups[1](_relu(net.up_norms[0].normalise(half.bands())))

        net.up_norms[1].measure(full)
        made = map(torch.tanh_, net.tail(_relu(net.up_norms[1].normalise(full()))))
        yield from _added_to(pixels_HWC, made, module.arch.channels_in) if module.arch.learn_residual else made


Layer = Callable[[Iterable[Tensor]], Iterator[Tensor]]

_BORDERS: dict[str, Border] = {"reflect": "reflect", "replicate": "repeat", "zero": "zero"}


class _Down:
    """The layers of a down-sampling step; `blur` is the filter after its norm, if it has one."""

    def __init__(self, layers: Iterator[nn.Module], arch: Architecture) -> None:
        conv, norm, _ = islice(layers, 3)
        self.conv: Layer = _padded(conv, 1, "zero")
        self.norm = WholeImageNorm(norm)
        self.blur: Layer | None = (
            partial(blur_down, cast(BlurDown, next(layers))) if arch.downsample == "blur" else None
        )


class _Block:
    """The layers of a residual block."""

    def __init__(self, block: ResnetBlock, arch: Architecture) -> None:
        layers = list(block.conv_block)
        one, two = (place for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d))
        self.first: Layer = _padded(layers[one], 1, _BORDERS[arch.padding])
        self.first_norm = WholeImageNorm(layers[one + 1])
        self.second: Layer = _padded(layers[two], 1, _BORDERS[arch.padding])
        self.second_norm = WholeImageNorm(layers[two + 1])


class _Layers:
    """The layers of a generator by name, with norms that hold no statistics yet."""

    def __init__(self, module: ResnetGenerator) -> None:
        arch, layers = module.arch, iter(module.model)
        centred = arch.norm == "instance" and not arch.track_running_stats
        self.to_input = partial(to_centred if centred else to_network, channels=arch.channels_in)
        pad, conv, norm, _ = islice(layers, 4)
        self.head: Layer = _padded(conv, cast(nn.ReflectionPad2d, pad).padding[0])
        self.head_norm = WholeImageNorm(norm, CENTRED_SCALE if centred else 1.0)
        self.downs = [_Down(layers, arch) for _ in range(2)]
        self.blocks = [_Block(cast(ResnetBlock, layer), arch) for layer in islice(layers, arch.blocks)]
        self.ups: list[Layer] = []
        self.up_norms = []
        for _ in range(2):
            self.ups.append(partial(up_conv, list(islice(layers, 2 if arch.upsample in ("nearest", "blur") else 1))))
            norm, _ = islice(layers, 2)
            self.up_norms.append(WholeImageNorm(norm))
        pad, last, _ = layers
        assert isinstance(last, nn.Conv2d)
        by_rows = ConvByRows(last, last.weight.dtype, shifted_sums=False)
        self.tail: Layer = partial(padded_conv, by_rows, cast(nn.ReflectionPad2d, pad).padding[0])
        self.dtype = cast(nn.Conv2d, module.model[4]).weight.dtype
        """Dtype of everything but the first and last convolution."""


def _padded(conv: nn.Module, margin: int, border: Border = "reflect") -> Layer:
    assert isinstance(conv, nn.Conv2d)
    return partial(padded_conv, conv, margin, border=border)


def _scratch(in_file: bool, shape: tuple[int, int], dtype: torch.dtype, folder: Path | None) -> Scratch:
    if not in_file:
        return MemoryScratch(*shape, dtype)
    try:
        return FileScratch(*shape, dtype, folder)
    except OSError as error:
        needed_gb = 2 * shape[0] * shape[1] * dtype.itemsize / 1e9
        raise SkipImage(
            f"The photo needs {needed_gb:.1f} GB of temporary disk beyond the memory allowed, which could not be "
            f"had ({error}); allow more memory, or choose another temporary folder."
        ) from error


def _relu(bands: Iterable[Tensor]) -> Iterator[Tensor]:
    return map(torch.relu_, bands)


def _sum(first: Iterable[Tensor], second: Iterable[Tensor]) -> Iterator[Tensor]:
    return (b.add_(a) for a, b in zip(first, second, strict=True))


def _added_to(pixels_HWC: Tensor, changes: Iterable[Tensor], channels: int) -> Iterator[Tensor]:
    first = 0
    for change in changes:
        rows = pixels_HWC[None, first : first + change.shape[2]].to(change.device)
        yield change.float() + to_network(rows, channels=channels)
        first += change.shape[2]
