"""A `WinogradGenerator` as a package for CPUs: each of its parts is compiled alone, and they are loaded together.

The parts of the residual blocks are compiled once for all of them, since their weights are arguments: compiling the
whole generator at once takes twice as long, most of it for copies of one block.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from engine.model.inference import InferenceGenerator
from engine.model.network import GeneratorNetwork
from engine.model.winograd import Part, WinogradGenerator, tile_table, winograd_layers, winograd_parts
from engine.runtime.backends.aoti import CompiledLibrary

OPTIONS: dict[str, Any] = {
    # Inputs of a tile are added as they are loaded. By default, sums of so many are stored first, and channels, along
    # which they lie in memory, are no longer the innermost loop.
    "realize_reads_threshold": 64,
    "realize_acc_reads_threshold": 64,
    "realize_opcount_threshold": 1024,
    "assert_indirect_indexing": False,  # the tables are our own
    # The code between kernels runs for microseconds; optimising it takes a third of the compiler's time.
    "aot_inductor.compile_wrapper_opt_level": "O0",
}
"""Options of TorchInductor for the parts."""


def export_parts(
    generator: GeneratorNetwork, inference: InferenceGenerator, side: int
) -> Iterator[tuple[Part, ExportedProgram]]:
    """Yield the parts of a `WinogradGenerator` for every image of up to `side` rows and columns.

    Takes the layers of `inference`, which was made from `generator`.
    """
    parts = winograd_parts(generator, inference)
    layer = winograd_layers(generator, inference.dtype)[0]
    stride, channels = generator.arch.stride, layer.kernels.shape[1]
    # The sides after down-sampling and the numbers of tiles are independent sizes for the compiler: it would otherwise
    # spend minutes with the divisions that relate them.
    least, most = max(1, 16 // stride), side // stride
    height, width = (stride * Dim(name, min=least, max=most) for name in ("rows", "columns"))
    tiles, tiles_across = (Dim(name, min=-(-least // 2), max=-(-most // 2)) for name in ("tile_rows", "tile_columns"))
    band = Dim("band_rows", min=1, max=-(-most // 2))

    pixels_NHWC = torch.zeros((1, 64 * stride, 96 * stride, 3), dtype=torch.uint8)
    rows, columns, some_rows = (tile_table(size) for size in (64, 96, 32))
    phases = torch.zeros((rows.shape[1], 2, 2, columns.shape[1], channels), dtype=inference.dtype)
    valid = torch.ones((rows.shape[1], 2, 1, 1, 1)), torch.ones((2, columns.shape[1], 1))
    norm = phases, *valid, layer.scale, layer.shift

    any_phases, any_pixels = {0: tiles, 3: tiles_across}, {1: height, 2: width}
    any_norm = any_phases, {0: tiles}, {1: tiles_across}, None, None
    examples: dict[Part, tuple[tuple[Tensor, ...], tuple[dict[int, Any] | None, ...]]] = {
        "begin": ((pixels_NHWC, rows, columns), (any_pixels, {1: tiles}, {1: tiles_across})),
        "convolve": ((phases, layer.kernels, some_rows, columns), (any_phases, None, {1: band}, {1: tiles_across})),
        "activate": (norm, any_norm),
        "add": ((phases.clone(), *norm), (any_phases, *any_norm)),
        "finish": ((phases, pixels_NHWC), (any_phases, any_pixels)),
    }
    for name, (example, sizes) in examples.items():
        yield name, torch.export.export(parts[name], example, dynamic_shapes=sizes)


def join_parts(parts: Iterator[tuple[Part, Path]], package: Path) -> None:
    """Write the libraries of compiled parts into one package."""
    with zipfile.ZipFile(package, "w") as joined:
        for name, part in parts:
            with zipfile.ZipFile(part) as archive:
                (library,) = (member for member in archive.namelist() if member.endswith(".so"))
                joined.writestr(f"{name}.so", archive.read(library))


def load_parts(package: Path, generator: GeneratorNetwork, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return a function of uint8 [N, H, W, 3]; raises what `CompiledLibrary` raises.

    Images are translated one by one, so that what is stored between the steps of a convolution stays in the cache.
    """
    libraries = {name: CompiledLibrary(package, name) for name in get_args(Part)}
    parts = {name: library.run if name in ("activate", "add") else library for name, library in libraries.items()}
    translate = WinogradGenerator(parts, winograd_layers(generator, dtype), generator.arch.stride)

    def translate_all(pixels_NHWC: Tensor) -> Tensor:
        translated = [translate(one_NHWC) for one_NHWC in torch.split(pixels_NHWC, 1)]
        return translated[0] if len(translated) == 1 else torch.cat(translated)

    return translate_all
