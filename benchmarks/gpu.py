"""Measure a GPU: ceilings, the generator by backend, size and batch, the whole pipeline, and a profile.

Each part is measured on its own; one that fails is reported with its reason, and the others go on. What is not
installed (DALI, nvImageCodec, TensorRT) is reported as such. Ceilings are those of `solstice bench`
(`engine.bench.ceilings`): the generator's is the rate of its most frequent convolution, applied to all its arithmetic.

    python -m benchmarks.gpu                 # on a machine with a GPU: some minutes
    python -m benchmarks.gpu --rehearse      # every line once, on the CPU with a tiny network; numbers are meaningless
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._C._autograd import DeviceType

from benchmarks.common import machine, make_model, make_photos, report
from engine.bench.ceilings import Machine, generator_gflop
from engine.bench.photos import QUALITY
from engine.codec import jpeg
from engine.codec.dali import GpuDecoder, Jpeg
from engine.codec.decode import Decoder
from engine.codec.header import inspect
from engine.codec.nvimgcodec import GpuEncoder
from engine.config import BatchConfig, DecodeConfig, GenerateConfig, PipelineConfig
from engine.errors import SetupError
from engine.model.inference import InferenceGenerator
from engine.model.network import ResnetBlock
from engine.model.weights import Generator, load_generator
from engine.options import Options, Size
from engine.pipeline import Pipeline
from engine.records import Record
from engine.runtime.backends.base import PRECISIONS
from engine.runtime.backends.eager import EagerBackend
from engine.runtime.cache import PackageCache, default_cache
from engine.runtime.parity import check
from engine.runtime.rates import batch_for, batches_in_flight_for, images_per_s, measure_backends
from engine.runtime.select import Choice, build, check_kernel_options
from engine.runtime.translator import BatchTranslator
from engine.system.device import fastest_precision
from engine.testing import MemorySink, MemorySource

Result = dict[str, Any]

DECODE: dict[str, Literal["auto", "cpu"]] = {"decoded on the CPU": "cpu", "decoded on the device": "auto"}

DALI_MISSING = "DALI is not installed (pip install nvidia-dali-cuda130)"


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    device: torch.device
    sides: tuple[int, ...]
    batches: tuple[int, ...]
    """Batch sizes at the first side."""
    photos: int
    """JPEGs to translate from bytes to bytes."""
    large: tuple[int, int]
    """Width and height of the photos translated at native size."""
    large_photos: int
    measured_s: float
    """How long to measure each ceiling at least, in seconds."""
    ngf: int
    blocks: int
    steady_s: float
    """How long to watch memory for growth, in seconds."""


GPU = Plan(
    device=torch.device("cuda", 0),
    sides=(256, 512, 1024),
    batches=(1, 2, 4, 8, 16, 32, 64),
    photos=4096,
    large=(4000, 3000),
    large_photos=96,
    measured_s=0.5,
    ngf=64,
    blocks=9,
    steady_s=20.0,
)
REHEARSAL = Plan(
    device=torch.device("cpu"),
    sides=(32, 64),
    batches=(1, 2),
    photos=24,
    large=(160, 120),
    large_photos=3,
    measured_s=0.01,
    ngf=4,
    blocks=1,
    steady_s=1.0,
)


def main() -> None:
    """Run all parts, printing each result, and write a JSON document at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="run every line once on the CPU with a tiny network")
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    arguments = parser.parse_args()
    plan = REHEARSAL if arguments.rehearse else GPU
    if plan.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU that this PyTorch can use; --rehearse runs on the CPU")
    result: Result = {"rehearsal": arguments.rehearse}
    with tempfile.TemporaryDirectory() as scratch:
        for name, part in measure(plan, Path(scratch)):
            result[name] = part
            if arguments.out:  # after every part, so that an interrupted run leaves its results
                arguments.out.write_text(json.dumps({"machine": machine(), **result}, indent=2))
    report("gpu", result)


def measure(plan: Plan, scratch: Path) -> Iterator[tuple[str, Result]]:
    """Run all parts; yield the name of each with its result, or with the reason why it failed."""
    model = make_model(scratch / "model.safetensors", plan.ngf, plan.blocks)
    generator = load_generator(model)
    config = GenerateConfig(device=str(plan.device), sides=plan.sides, cache=scratch / "cache")
    parts: dict[str, Callable[[], Result]] = {
        "ceilings": lambda: ceilings(plan, generator),
        "backends": lambda: backends(generator, config),
        "batches": lambda: batches(plan, generator),
        "first_result": lambda: first_result(plan, model, scratch),
        "end_to_end": lambda: end_to_end(plan, generator, config, scratch),
        "large_photos": lambda: large_photos(plan, generator, config, scratch),
        "decoders": lambda: decoders(plan, scratch),
        "encoders": lambda: encoders(plan),
        "profile": lambda: profile(plan, generator),
        "steady": lambda: steady(plan, generator, config),
        "trunk": lambda: trunk(plan, generator),
        "variants": lambda: variants(plan, generator, config),
    }
    for name, part in parts.items():
        started_s = time.perf_counter()
        try:
            result = part()
        except Exception as error:  # noqa: BLE001 (the other parts are still worth measuring)
            traceback.print_exc()
            result = {"failed": f"{type(error).__name__}: {error}"}
        print(f"{name} ({time.perf_counter() - started_s:.1f} s): {json.dumps(result, indent=2)}", flush=True)
        yield name, result


def ceilings(plan: Plan, generator: Generator) -> Result:
    """Measure what `solstice bench` measures of the device alone, and derive the generator's ceiling from it."""
    precision = fastest_precision(plan.device)
    machine = Machine(plan.device, precision, plan.measured_s)
    arch = generator.module.arch
    convolution = machine.convolution_tflops(arch, plan.batches[-1])
    result: Result = {
        "precision": precision,
        "matrix_product_tflops": round(machine.matrix_tflops(precision), 3),
        "trunk_convolution_tflops": round(convolution, 3),
        "copy_in_gb_per_s": round(machine.transfer_gb_per_s(to_device=True), 2),
        "copy_out_gb_per_s": round(machine.transfer_gb_per_s(to_device=False), 2),
        "device_copy_gb_per_s": round(machine.copy_gb_per_s(), 1),
    }
    for side in plan.sides:
        result[f"generator_images_per_s_at_{side}"] = round(convolution * 1e3 / generator_gflop(arch, side, side), 1)
    return result


def backends(generator: Generator, config: GenerateConfig) -> Result:
    """Compile, check and time all backends as `solstice compile` does, from and to host memory."""
    return {
        f"{row.backend} {row.precision} {row.side}": {
            "batch": row.batch,
            "images_per_s": row.images_per_s and round(row.images_per_s, 1),
            "note": row.note,
        }
        for row in measure_backends(generator, config)
    }


def batches(plan: Plan, generator: Generator) -> Result:
    """Time eager at the first size by batch size, and torch.compile, which needs no CUDA headers."""
    precision = fastest_precision(plan.device) if plan.device.type == "cuda" else "fp32"
    backend = EagerBackend(generator, precision, plan.device)
    rates = {
        str(batch): round(images_per_s(backend, batch, plan.sides[0], 0.5, batches_in_flight_for(plan.device)), 1)
        for batch in plan.batches
    }
    types = PRECISIONS[precision]
    rewritten = InferenceGenerator(generator.module, types.dtype, compiled=True, norm_by_rows=False).to(plan.device)
    # CUDA graphs are bound to the thread that recorded them.
    mode = "max-autotune-no-cudagraphs" if plan.device.type == "cuda" else "default"
    module = torch.compile(rewritten, mode=mode)
    batch = batch_for(plan.sides[0], plan.device)

    @torch.inference_mode()
    def compiled(pixels_NHWC: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = module(pixels_NHWC.to(plan.device)).cpu()
        return result

    return {"eager": rates, f"torch.compile, batch {batch}": round(images_per_s(compiled, batch, plan.sides[0]), 1)}


def first_result(plan: Plan, model: Path, scratch: Path) -> Result:
    """Time `solstice convert` of one photo as a whole process, with compiled packages in the cache."""
    side = plan.sides[0]
    make_photos(scratch / "one", 1, side, side)
    environment = {**os.environ, "SOLSTICE_CACHE": str(scratch / "cache")}
    times_s = []
    for i in range(2):  # the first one also warms the disk cache
        arguments = ["convert", scratch / "one", scratch / f"first{i}", "--model", model]
        command = ["-m", "engine", *arguments, "--size", side, "--device", plan.device, "--json"]
        started_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *map(str, command)], env=environment, check=True, capture_output=True, text=True
        )
        times_s.append(round(time.perf_counter() - started_s, 2))
    return {"seconds": times_s[-1], "the time before": times_s[0], "backend": json.loads(done.stdout)["backend"]}


def end_to_end(plan: Plan, generator: Generator, config: GenerateConfig, scratch: Path) -> Result:
    """Time JPEG bytes to JPEG bytes in memory, and the generator alone."""
    side, batch = plan.sides[0], batch_for(plan.sides[0], plan.device)
    make_photos(scratch / "photos", min(plan.photos, 64), side, side)
    translator = BatchTranslator(generator, config)
    alone = images_per_s(translator, batch, side, threads=batches_in_flight_for(plan.device))
    pipeline = PipelineConfig(
        options=Options(size=Size.parse(f"{side}x{side}"), format="jpeg"),
        batch=BatchConfig(size=batch, max_pixels=batch * side * side),
        generate=config,
    )
    rates = _through(pipeline, translator, scratch / "photos", plan.photos)
    return {
        **rates,
        "generator_alone_images_per_s": round(alone, 1),
        "share": round(max(rates.values()) / alone, 3),
    }


def large_photos(plan: Plan, generator: Generator, config: GenerateConfig, scratch: Path) -> Result:
    """Time photos at native size, from JPEG bytes to JPEG bytes in memory, and in the generator alone."""
    width, height = plan.large
    make_photos(scratch / "large", 4, width, height)
    translator = BatchTranslator(generator, config)
    pixels_NHWC = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8)
    alone_s = _best_s(plan, lambda: translator(pixels_NHWC), repeats=3)
    pipeline = PipelineConfig(options=Options(size=Size.parse("native"), format="jpeg"), generate=config)
    rates = _through(pipeline, translator, scratch / "large", plan.large_photos)
    return {
        "megapixels": round(width * height / 1e6, 2),
        **rates,
        "generator_alone_images_per_s": round(1 / alone_s, 2),
        "backend": translator.reason,
        "memory_bytes": torch.cuda.max_memory_reserved(plan.device) if plan.device.type == "cuda" else 0,
    }


def _through(config: PipelineConfig, translator: BatchTranslator, folder: Path, count: int) -> dict[str, float]:
    """Return images/s through the pipeline, with JPEGs decoded on the CPU and, if DALI is installed, on the device."""
    jpegs = [path.read_bytes() for path in sorted(folder.iterdir())]
    images = [(f"{i}.jpg", jpegs[i % len(jpegs)]) for i in range(count)]
    rates = {}
    for name, jpegs_on in DECODE.items():
        if jpegs_on == "auto" and not has_dali():
            continue  # it would be the CPU again
        decode = replace(config.decode, jpegs=jpegs_on)
        sink = MemorySink()
        started_s = time.perf_counter()
        source = MemorySource(images, config.options)
        Pipeline(source, sink, {"": translator}, replace(config, decode=decode)).run()
        rates[f"images_per_s, {name}"] = round(count / (time.perf_counter() - started_s), 2)
        assert len(sink.results) == count, sink.failures
    return rates


def decoders(plan: Plan, scratch: Path) -> Result:
    """Compare decoding and shrinking JPEGs to the first side: one CPU thread, and the device's decoder."""
    side, batch = plan.sides[0], batch_for(plan.sides[0], plan.device)
    options = Options(size=Size.parse(f"{side}x{side}"))
    result: Result = {}
    for width, height in ((side, side), (4 * side, 3 * side), plan.large):
        folder = scratch / f"{width}x{height}"
        make_photos(folder, min(4, batch), width, height)
        encoded = [path.read_bytes() for path in sorted(folder.iterdir())]
        jpegs = [encoded[i % len(encoded)] for i in range(batch)]
        config = DecodeConfig(chunk_images=batch, allow_damaged=True)
        records = [Record(key="", payload=inspect(data, config.max_pixels), options=options) for data in jpegs]
        rates = {"one CPU thread": batch / _best_s(plan, partial(Decoder(config), records), repeats=2)}
        if has_dali():
            on_device = GpuDecoder(plan.device, batch)
            wanted = [Jpeg(data, side, side) for data in jpegs]
            assert all(pixels is not None for pixels in on_device(wanted))
            rates["the device"] = batch / _best_s(plan, partial(on_device, wanted), repeats=2)
        result[f"{width}x{height}"] = {name: round(rate, 1) for name, rate in rates.items()}
    return result if has_dali() else {**result, "the device": DALI_MISSING}


def encoders(plan: Plan) -> Result:
    """Compare JPEG encoders by size: one CPU thread, and nvImageCodec on the device with the copy to it."""
    on_device = GpuEncoder(plan.device)
    result: Result = {}
    for side in (*plan.sides, 4 * plan.sides[-1]):
        array = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8).numpy()
        rates = {"one CPU thread": 1 / _best_s(plan, partial(jpeg.encode, array, QUALITY, "4:2:0"))}
        if on_device(array, QUALITY, "4:2:0") is not None:
            rates["nvImageCodec"] = 1 / _best_s(plan, partial(on_device, array, QUALITY, "4:2:0"))
        result[str(side)] = {name: round(rate, 1) for name, rate in rates.items()}
    missing = not all("nvImageCodec" in rates for rates in result.values())
    return {**result, "nvImageCodec": "not installed or without a working encoder here"} if missing else result


def has_dali() -> bool:
    """Return whether DALI is installed."""
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:
        return False


def profile(plan: Plan, generator: Generator) -> Result:
    """Return the share of each kernel in the device time of an eager batch of random pixels (CPU: of each operator).

    "busy" is the share of the time from the first kernel to the end of the last in which one runs; the rest is what a
    CUDA graph can gain.
    """
    precision = fastest_precision(plan.device) if plan.device.type == "cuda" else "fp32"
    backend = EagerBackend(generator, precision, plan.device)
    shape = (batch_for(plan.sides[0], plan.device), plan.sides[0], plan.sides[0], 3)
    pixels_NHWC = torch.randint(0, 256, shape, dtype=torch.uint8)
    for _ in range(4):  # cuDNN has selected its algorithms then
        backend(pixels_NHWC)
    on_gpu = plan.device.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profiler:
        backend(pixels_NHWC)
    times = {
        event.key: float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)
        for event in profiler.key_averages()
        if not on_gpu or event.device_type == DeviceType.CUDA
    }
    total = sum(times.values()) or 1.0
    shares = {name: round(times[name] / total, 3) for name in sorted(times, key=lambda name: -times[name])[:12]}
    ranges = [event.time_range for event in profiler.events() if not on_gpu or event.device_type == DeviceType.CUDA]
    span = max((time.end for time in ranges), default=0) - min((time.start for time in ranges), default=0)
    return {"busy": round(total / span, 3) if span else None, **shares}


def trunk(plan: Plan, generator: Generator) -> Result:
    """Time the residual blocks alone on the device: PyTorch's kernels, and those in Triton by tiling."""
    side, batch = plan.sides[0] // 4, batch_for(plan.sides[0], plan.device)
    channels = 4 * generator.module.arch.ngf
    dtype = torch.float16 if plan.device.type == "cuda" else torch.float32
    blocks = [layer for layer in generator.module.modules() if isinstance(layer, ResnetBlock)]
    x = torch.randn(batch, channels, side, side).to(plan.device, dtype).contiguous(memory_format=torch.channels_last)
    gflop = len(blocks) * 2 * 2 * 9 * channels**2 * side**2 / 1e9

    @torch.inference_mode()
    def timed(module: nn.Module) -> tuple[Tensor, dict[str, float]]:
        seconds = _best_s(plan, lambda: module(x)) / batch
        rates = {"us_per_image": round(1e6 * seconds, 2), "tflops": round(gflop / seconds / 1e3, 3)}
        return module(x).double(), rates

    theirs = copy.deepcopy(nn.Sequential(*blocks)).to(plan.device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    expected, rates = timed(theirs)
    result: Result = {"dtype": str(dtype), "torch": rates}
    if plan.device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return {**result, "triton": "needs an NVIDIA GPU and Triton"}
    from engine.runtime.backends import trunk as kernels
    from engine.runtime.backends.trunk import Tiling

    for tiling in (Tiling(), Tiling(stages=3), Tiling(columns=128), Tiling(rows=64, warps=4)):
        kernels.TILING = tiling
        made, rates = timed(kernels.TritonTrunk(blocks).to(plan.device))
        error = float((made - expected).norm() / expected.norm())
        result[str(tiling)] = {**rates, "relative_difference": round(error, 5)}
    kernels.TILING = Tiling()
    return result


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "eager": ("eager", {}),
    "eager, CUDA graphs": ("eager", {"cuda_graph": True}),
    "inductor": ("inductor", {}),
    "inductor, CUDA graphs": ("inductor", {"cuda_graph": True}),
    "eager, trunk in Triton": ("eager", {"trunk": "triton"}),
    "inductor, trunk in Triton": ("inductor", {"trunk": "triton"}),
    "inductor, trunk in Triton, CUDA graphs": ("inductor", {"trunk": "triton", "cuda_graph": True}),
    "tensorrt, tuned for 64 images": ("tensorrt", {"tuned_batch": 64, "sides": (256,)}),
}


def variants(plan: Plan, generator: Generator, config: GenerateConfig) -> Result:
    """Check and time what is off by default, beside the same backend without it, by batch at the first side."""
    packages = PackageCache(config.cache or default_cache())
    precision, threads = fastest_precision(plan.device), batches_in_flight_for(plan.device)
    side = plan.sides[0]
    batches = sorted({plan.batches[0], 8, batch_for(side, plan.device), plan.batches[-1]})
    result: Result = {}
    for name, (backend_name, changes) in VARIANTS.items():
        wanted = replace(config, **changes)
        try:
            check_kernel_options(wanted, plan.device, generator.module.arch)
            backend = build(Choice(backend_name, precision), generator, wanted, plan.device, packages)
            parity = str(check(generator, backend, packages))
            rates = {str(batch): round(images_per_s(backend, batch, side, 0.5, threads), 1) for batch in batches}
            result[name] = {"parity": parity, "images_per_s": rates}
        except SetupError as error:
            result[name] = str(error)
        except Exception as error:  # noqa: BLE001 (the other variants are still worth measuring)
            result[name] = {"failed": f"{type(error).__name__}: {error}"}
        print(f"{name}: {result[name]}", flush=True)  # compiling takes minutes, and the time is limited
    return result


def steady(plan: Plan, generator: Generator, config: GenerateConfig) -> Result:
    """Translate batches of changing sizes and watch the GPU memory that the driver reports."""
    translator = BatchTranslator(generator, config)
    shapes = [(batch_for(side, plan.device), side, side, 3) for side in plan.sides]
    batches = [torch.zeros(shape, dtype=torch.uint8) for shape in shapes]
    for pixels_NHWC in batches * 2:
        translator(pixels_NHWC)
    used, images, started_s = [_used(plan)], 0, time.perf_counter()
    while (passed_s := time.perf_counter() - started_s) < plan.steady_s:
        for pixels_NHWC in batches:
            translator(pixels_NHWC)
            images += len(pixels_NHWC)
        if passed_s > len(used) * plan.steady_s / 10:
            used.append(_used(plan))
    used.append(_used(plan))
    return {
        "seconds": plan.steady_s,
        "images_per_s": round(images / (time.perf_counter() - started_s), 1),
        "memory_growth_bytes": used[-1] - used[0],
        "memory_bytes": used,
    }


def _best_s(plan: Plan, work: Callable[[], object], repeats: int = 6) -> float:
    return min(_times(plan, work, repeats))


def _times(plan: Plan, work: Callable[[], object], repeats: int) -> Iterator[float]:
    work()
    for _ in range(repeats):
        with _finished(plan):
            started_s = time.perf_counter()
            work()
        yield time.perf_counter() - started_s


@contextmanager
def _finished(plan: Plan) -> Iterator[None]:
    """Synchronise with the GPU before and after the block."""
    if plan.device.type == "cuda":
        torch.cuda.synchronize(plan.device)
    yield
    if plan.device.type == "cuda":
        torch.cuda.synchronize(plan.device)


def _used(plan: Plan) -> int:
    """Return the bytes of GPU memory in use by any library."""
    if plan.device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(plan.device)
    return total - free


if __name__ == "__main__":
    main()
