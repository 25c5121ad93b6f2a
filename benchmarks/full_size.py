"""Photos at full size: tiles against the whole image, and guided detail against native size.

The ceiling is the rate of the residual blocks' convolution, in the same type and at the width of a band: no
translation of a whole photo can be faster than its arithmetic at that rate. Each size runs in a process of its
own, so that its peak memory is its own. On a busy machine trust the ratios of alternated runs, not single times.
`benchmarks/scaling.py megapixels` measures the rate by size.

    python -m benchmarks.full_size whole --megapixels 1 4 12
    python -m benchmarks.full_size guided --megapixels 24
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import simplejpeg
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import generator_gflop, report, seconds, spread
from engine.codec.detail import guided_upsample
from engine.codec.geometry import resize
from engine.model.card import Architecture
from engine.model.network import ResnetGenerator
from engine.model.pixels import to_network, to_pixels
from engine.runtime.tiled.translate import plan_tiles, translate_tiled, whole_image_bytes

DTYPE = torch.bfloat16


def main() -> None:
    """Measure what the command line asks for; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["whole", "guided"])
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 16])
    parser.add_argument("--ngf", type=int, default=32)
    parser.add_argument("--upsample", choices=["transpose", "resize"], default="transpose")
    parser.add_argument("--working", type=int, default=512, help="short side for guided, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    arch = Architecture(ngf=arguments.ngf, upsample=arguments.upsample)
    measure = {"whole": tiled_against_whole, "guided": guided_against_native}[arguments.what]
    with torch.inference_mode():
        ceiling = ceiling_mp_s(arch)
        print(f"ceiling {ceiling:.2f} MP/s: all arithmetic at the rate of a residual convolution")
        results = [measure(arch, megapixels, arguments) for megapixels in arguments.megapixels]
    report(f"full-size-{arguments.what}", {"arch": str(arch), "ceiling_mp_s": round(ceiling, 3), "results": results})


def ceiling_mp_s(arch: Architecture) -> float:
    """Return the rate of a 3x3 convolution over a band, best of ten, as megapixels of photo per second."""
    channels, rows, width = 4 * arch.ngf, 16, 1500
    band = torch.randn(1, channels, rows + 2, width + 2).to(DTYPE).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3).to(DTYPE)
    best_s = min(seconds(lambda: F.conv2d(band, weight)) for _ in range(10))
    flop_s = 2 * 9 * channels * channels * rows * width / best_s
    return flop_s / 1e9 / generator_gflop(arch, 1000, 1000)


def scaling(arch: Architecture, megapixels: float, budget_mb: int) -> dict[str, Any]:
    """Translate one photo in tiles, in a new process: time, rate and added memory."""
    budget_bytes = budget_mb * 1_000_000
    result = in_new_process(_tiled_once, arch, shape_of(megapixels), budget_bytes)
    print(
        f"{megapixels:6.1f} MP {result['seconds']:8.1f} s {result['mp_s']:.3f} MP/s, "
        f"{result['added_mb']} MB added of {budget_mb} MB allowed, {result['resident_mb']} MB resident",
        flush=True,
    )
    return result


def _tiled_once(arch: Architecture, shape: tuple[int, int], budget_bytes: int) -> dict[str, Any]:
    module, pixels = _module(arch), _photo(*shape)
    plan = plan_tiles(arch, *shape, DTYPE, budget_bytes=budget_bytes)
    translate_tiled(module, pixels[:256, :256].contiguous(), budget_bytes=budget_bytes)
    before_mb = _resident_mb("VmRSS")
    elapsed_s = seconds(lambda: translate_tiled(module, pixels, budget_bytes=budget_bytes))
    megapixels = shape[0] * shape[1] / 1e6
    return {
        "megapixels": round(megapixels, 2),
        "seconds": round(elapsed_s, 2),
        "mp_s": round(megapixels / elapsed_s, 4),
        "added_mb": _resident_mb("VmHWM") - before_mb,
        "resident_mb": _resident_mb("VmHWM"),
        "tables_in_file": plan.in_file,
    }


def tiled_against_whole(arch: Architecture, megapixels: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """Alternate tiles, the whole image compiled and the whole image in eager mode; ratios of neighbouring runs."""
    result = in_new_process(_alternate, arch, shape_of(megapixels), arguments.rounds)
    print(
        f"{megapixels:6.1f} MP tiled {result['tiled_s']['median']:.2f} s; of the whole image's time: "
        f"compiled {result['of_compiled']['median']:.2f}, eager {result['of_eager']['median']:.2f}",
        flush=True,
    )
    return result


def _alternate(arch: Architecture, shape: tuple[int, int], rounds: int) -> dict[str, Any]:
    module, pixels = _module(arch), _photo(*shape)
    compiled: Callable[[Tensor], Tensor] = torch.compile(module, dynamic=False)

    def whole(translate: Callable[[Tensor], Tensor]) -> Tensor:
        return to_pixels(translate(to_network(pixels[None], DTYPE)))

    runs = {
        "tiled": lambda: translate_tiled(module, pixels, budget_bytes=whole_image_bytes(arch, *shape, DTYPE)),
        "compiled": lambda: whole(compiled),
        "eager": lambda: whole(module.forward),
    }
    for run in runs.values():
        seconds(run)
    times_s = [{name: seconds(run) for name, run in runs.items()} for _ in range(rounds)]
    return {
        "megapixels": round(shape[0] * shape[1] / 1e6, 2),
        **{f"{name}_s": spread([times[name] for times in times_s]) for name in runs},
        **{f"of_{name}": spread([times["tiled"] / times[name] for times in times_s]) for name in ("compiled", "eager")},
    }


def guided_against_native(arch: Architecture, megapixels: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """Compare JPEG to JPEG both ways; native is measured on a piece of 2 MP and scaled, since its time is linear."""
    result = in_new_process(_guided, arch, shape_of(megapixels), arguments.working, arguments.rounds)
    print(
        f"{megapixels:6.1f} MP guided {result['guided_s']['median']:.2f} s from JPEG to JPEG, of which the filter "
        f"{result['filter_s']['median']:.2f} s; native about {result['native_s']['median']:.1f} s: "
        f"{result['times_as_fast']['median']:.1f} times as fast",
        flush=True,
    )
    return result


def _guided(arch: Architecture, shape: tuple[int, int], working: int, rounds: int) -> dict[str, Any]:
    module, pixels = _module(arch), _photo(*shape)
    jpeg = simplejpeg.encode_jpeg(pixels.numpy(), quality=92, colorsubsampling="420")
    height, width = (4 * round(side * working / min(shape) / 4) for side in shape)
    piece_shape = shape_of(2.0)
    piece = pixels[: piece_shape[0], : piece_shape[1]].contiguous()
    budget_bytes = 2_000_000_000

    def ends() -> None:
        photo = simplejpeg.decode_jpeg(jpeg)
        simplejpeg.encode_jpeg(photo, quality=92, colorsubsampling="420")

    def guided() -> dict[str, float]:
        started_s = time.perf_counter()
        photo = torch.from_numpy(simplejpeg.decode_jpeg(jpeg))
        small = resize(photo, width, height)
        translated = translate_tiled(module, small, budget_bytes=budget_bytes)
        filter_started_s = time.perf_counter()
        result = guided_upsample(photo, small, translated)
        filter_s = time.perf_counter() - filter_started_s
        simplejpeg.encode_jpeg(result.numpy(), quality=92, colorsubsampling="420")
        return {"guided_s": time.perf_counter() - started_s, "filter_s": filter_s}

    def native() -> float:
        piece_s = seconds(lambda: translate_tiled(module, piece, budget_bytes=budget_bytes))
        return seconds(ends) + piece_s * pixels.numel() / piece.numel()

    rows = [{**guided(), "native_s": native()} for _ in range(rounds + 1)][1:]
    for row in rows:
        row["times_as_fast"] = row["native_s"] / row["guided_s"]
    return {
        "megapixels": round(shape[0] * shape[1] / 1e6, 2),
        "working": [height, width],
        **{name: spread([row[name] for row in rows]) for name in rows[0]},
    }


def in_new_process(work: Any, *arguments: Any) -> dict[str, Any]:
    """Return the result of `work`, run in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result: dict[str, Any] = pool.submit(_without_gradients, work, *arguments).result()
    return result


def _without_gradients(work: Any, *arguments: Any) -> dict[str, Any]:
    with torch.inference_mode():
        result: dict[str, Any] = work(*arguments)
    return result


def shape_of(megapixels: float) -> tuple[int, int]:
    """Return (height, width) of a photo of 3:2, both multiples of 4."""
    height = 4 * round((megapixels * 1e6 / 1.5) ** 0.5 / 4)
    return height, 4 * round(megapixels * 1e6 / height / 4)


def _module(arch: Architecture) -> ResnetGenerator:
    torch.manual_seed(0)
    module = ResnetGenerator(arch).eval().to(DTYPE)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
    return module


def _photo(height: int, width: int) -> Tensor:
    """Return coarse shapes under fine grain; memory holds no more than the uint8 result and a few rows."""
    coarse = torch.randint(0, 256, (9, 13, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    photo = resize(coarse, width, height)
    for first in range(0, height, 256):
        rows = photo[first : first + 256]
        rows.copy_((rows.short() + torch.randint(-8, 9, rows.shape, dtype=torch.int16)).clamp_(0, 255))
    return photo


def _resident_mb(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) // 1000


if __name__ == "__main__":
    main()
