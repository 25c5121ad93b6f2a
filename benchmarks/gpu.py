"""What a GPU does here: ceilings, the generator by backend, size and batch, the whole way, and where the time goes.

Every part is measured on its own, and one that fails is reported with its reason while the others go on. The ceiling
for the generator is the rate of a large fp16 matrix product over the network's arithmetic.

    python -m benchmarks.gpu                 # on a machine with a GPU: some minutes
    python -m benchmarks.gpu --rehearse      # every line once, on the CPU with a tiny network; the numbers mean nothing
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import generator_gflop, machine, make_model, make_photos, report
from engine.backends.eager import EagerBackend
from engine.config import BatchConfig, DecodeConfig, EncodeConfig, GenerateConfig, PipelineConfig
from engine.device import fastest_precision
from engine.generate import Translator
from engine.pipeline import Pipeline
from engine.rates import batch_for, images_per_s, lanes_for, measure_backends
from engine.records import Options, Size
from engine.sinks.memory import MemorySink
from engine.sources.memory import MemorySource
from engine.weights import Generator, load_generator

Result = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    device: torch.device
    sides: tuple[int, ...]
    batches: tuple[int, ...]
    """Batch sizes at the first side."""
    photos: int
    """JPEGs that go the whole way."""
    matrix_side: int
    ngf: int
    blocks: int
    steady_s: float
    """How long memory is watched for growth."""


GPU = Plan(torch.device("cuda", 0), (256, 512, 1024), (1, 2, 4, 8, 16, 32, 64), 4096, 8192, 64, 9, 60.0)
REHEARSAL = Plan(torch.device("cpu"), (32, 64), (1, 2), 24, 256, 4, 1, 1.0)


def main() -> None:
    """Measure part after part, print a table as it grows and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="run every line once on the CPU with a tiny network")
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    arguments = parser.parse_args()
    plan = REHEARSAL if arguments.rehearse else GPU
    if plan.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU that this PyTorch can use; --rehearse runs on the CPU")
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(plan, Path(scratch))
    result["rehearsal"] = arguments.rehearse
    if arguments.out:
        arguments.out.write_text(json.dumps({"machine": machine(), **result}, indent=2))
    report("gpu", result)


def measure(plan: Plan, scratch: Path) -> Result:
    """Run all parts; gives their results and the reasons of those that failed."""
    generator = load_generator(make_model(scratch / "model.safetensors", plan.ngf, plan.blocks))
    config = GenerateConfig(device=str(plan.device), sides=plan.sides, cache=scratch / "cache")
    parts: dict[str, Callable[[], Result]] = {
        "ceilings": lambda: ceilings(plan, generator),
        "backends": lambda: backends(generator, config),
        "batches": lambda: batches(plan, generator),
        "first_result_s": lambda: first_result(generator, config),
        "end_to_end": lambda: end_to_end(plan, generator, config, scratch),
        "encoders": lambda: encoders(plan),
        "profile": lambda: profile(plan, generator),
        "steady": lambda: steady(plan, generator, config),
    }
    results: Result = {}
    for name, part in parts.items():
        started_s = time.perf_counter()
        try:
            results[name] = part()
        except Exception as error:  # noqa: BLE001 (the other parts are still worth measuring)
            traceback.print_exc()
            results[name] = {"failed": f"{type(error).__name__}: {error}"}
        print(f"{name} ({time.perf_counter() - started_s:.1f} s): {json.dumps(results[name], indent=2)}", flush=True)
    return results


def ceilings(plan: Plan, generator: Generator) -> Result:
    """Measure a large matrix product and copies, and what they allow the generator."""
    dtype = torch.float16 if plan.device.type == "cuda" else torch.float32
    left, right = (torch.randn(plan.matrix_side, plan.matrix_side, device=plan.device, dtype=dtype) for _ in range(2))
    tflops = 2 * plan.matrix_side**3 / _best_s(plan, lambda: left @ right) / 1e12
    source = torch.empty(64 << 20, dtype=torch.uint8)
    host = source.pin_memory() if plan.device.type == "cuda" else source
    on_device = torch.empty_like(host, device=plan.device)
    result: Result = {
        "matrix_product_tflops": round(tflops, 1),
        "copy_in_gb_per_s": round(host.numel() / _best_s(plan, lambda: on_device.copy_(host)) / 1e9, 2),
        "copy_out_gb_per_s": round(host.numel() / _best_s(plan, lambda: host.copy_(on_device)) / 1e9, 2),
        "device_copy_gb_per_s": round(2 * host.numel() / _best_s(plan, on_device.clone) / 1e9, 1),
    }
    for side in plan.sides:
        gflop = generator_gflop(generator.module.arch, side, side)
        result[f"generator_images_per_s_at_{side}"] = round(tflops * 1e3 / gflop, 1)
    return result


def backends(generator: Generator, config: GenerateConfig) -> Result:
    """Compile, check and time all backends, as `solstice compile` does: batches from and to host memory."""
    return {
        f"{row.backend} {row.precision} {row.side}": {
            "batch": row.batch,
            "images_per_s": row.images_per_s and round(row.images_per_s, 1),
            "note": row.note,
        }
        for row in measure_backends(generator, config)
    }


def batches(plan: Plan, generator: Generator) -> Result:
    """Time eager at the first size by batch, and torch.compile beside it, which needs no CUDA headers."""
    precision = fastest_precision(plan.device) if plan.device.type == "cuda" else "fp32"
    backend = EagerBackend(generator, precision, plan.device)
    rates = {
        str(batch): round(images_per_s(backend, batch, plan.sides[0], 0.5, lanes_for(plan.device)), 1)
        for batch in plan.batches
    }
    module = torch.compile(backend._module, mode="max-autotune" if plan.device.type == "cuda" else "default")
    batch = batch_for(plan.sides[0], plan.device)

    @torch.inference_mode()
    def compiled(pixels_NHWC: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = module(pixels_NHWC.to(plan.device)).cpu()
        return result

    return {"eager": rates, f"torch.compile, batch {batch}": round(images_per_s(compiled, batch, plan.sides[0]), 1)}


def first_result(generator: Generator, config: GenerateConfig) -> Result:
    """Time from nothing to a translated image with a warm registry; importing Python's modules is not in it."""
    started_s = time.perf_counter()
    translator = Translator(generator, config)
    translator(torch.zeros(1, config.sides[0], config.sides[0], 3, dtype=torch.uint8))
    return {"seconds": round(time.perf_counter() - started_s, 2), "backend": translator.reason}


def end_to_end(plan: Plan, generator: Generator, config: GenerateConfig, scratch: Path) -> Result:
    """JPEG bytes to JPEG bytes in memory, beside the generator alone."""
    side, batch = plan.sides[0], batch_for(plan.sides[0], plan.device)
    make_photos(scratch / "photos", min(plan.photos, 64), side, side)
    jpegs = [path.read_bytes() for path in sorted((scratch / "photos").iterdir())]
    images = [(f"{i}.jpg", jpegs[i % len(jpegs)]) for i in range(plan.photos)]
    translator = Translator(generator, config)
    lanes = lanes_for(plan.device)
    alone = images_per_s(translator, batch, side, lanes=lanes)
    pipeline_config = PipelineConfig(
        options=Options(size=Size.parse(f"{side}x{side}"), format="jpeg"),
        decode=DecodeConfig(chunk_images=batch),
        batch=BatchConfig(size=batch, max_pixels=batch * side * side),
        generate=GenerateConfig(lanes=lanes),
        encode=EncodeConfig(),
    )
    sink = MemorySink()
    started_s = time.perf_counter()
    Pipeline(MemorySource(images, pipeline_config.options), sink, {"": translator}, pipeline_config).run()
    rate = plan.photos / (time.perf_counter() - started_s)
    assert len(sink.results) == plan.photos, sink.failures
    return {
        "images_per_s": round(rate, 1),
        "generator_alone_images_per_s": round(alone, 1),
        "share": round(rate / alone, 3),
    }


def encoders(plan: Plan) -> Result:
    """Compare JPEG encoders by size: one CPU thread, and nvImageCodec on the GPU."""
    import simplejpeg

    result: Result = {}
    for side in (*plan.sides, 4 * plan.sides[-1]):
        pixels_HWC = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8)
        array = pixels_HWC.numpy()
        rates = {"one CPU thread": 1 / _best_s(plan, partial(simplejpeg.encode_jpeg, array, 92, "RGB", "420"))}
        if plan.device.type == "cuda":
            rates["nvImageCodec"] = 1 / _best_s(plan, _gpu_encoder(pixels_HWC.to(plan.device)))
        result[str(side)] = {name: round(rate, 1) for name, rate in rates.items()}
    return result


def profile(plan: Plan, generator: Generator) -> Result:
    """Tell which operators the time of a batch goes to, in eager: the share of each."""
    precision = fastest_precision(plan.device) if plan.device.type == "cuda" else "fp32"
    backend = EagerBackend(generator, precision, plan.device)
    pixels_NHWC = torch.zeros(batch_for(plan.sides[0], plan.device), plan.sides[0], plan.sides[0], 3, dtype=torch.uint8)
    backend(pixels_NHWC)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if plan.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        backend(pixels_NHWC)
    on_gpu = plan.device.type == "cuda"
    times = {
        event.key: float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)
        for event in profiler.key_averages()
    }
    total = sum(times.values()) or 1.0
    return {name: round(times[name] / total, 3) for name in sorted(times, key=lambda name: -times[name])[:12]}


def steady(plan: Plan, generator: Generator, config: GenerateConfig) -> Result:
    """Translate for a while and watch the GPU's memory."""
    translator = Translator(generator, config)
    pixels_NHWC = torch.zeros(batch_for(plan.sides[0], plan.device), plan.sides[0], plan.sides[0], 3, dtype=torch.uint8)
    translator(pixels_NHWC)
    before, images, started_s = _reserved(plan), 0, time.perf_counter()
    while time.perf_counter() - started_s < plan.steady_s:
        translator(pixels_NHWC)
        images += len(pixels_NHWC)
    return {
        "seconds": plan.steady_s,
        "images_per_s": round(images / (time.perf_counter() - started_s), 1),
        "memory_growth_bytes": _reserved(plan) - before,
    }


def _gpu_encoder(pixels_HWC: torch.Tensor) -> Callable[[], object]:
    from nvidia import nvimgcodec

    encoder = nvimgcodec.Encoder()
    parameters = nvimgcodec.EncodeParams(quality_type=nvimgcodec.QualityType.QUALITY, quality_value=92)
    image = nvimgcodec.as_image(pixels_HWC)
    return lambda: encoder.encode(image, "jpeg", params=parameters)


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
    """Let a GPU end what it was given, before and after."""
    if plan.device.type == "cuda":
        torch.cuda.synchronize(plan.device)
    yield
    if plan.device.type == "cuda":
        torch.cuda.synchronize(plan.device)


def _reserved(plan: Plan) -> int:
    return torch.cuda.memory_reserved(plan.device) if plan.device.type == "cuda" else 0


if __name__ == "__main__":
    main()
