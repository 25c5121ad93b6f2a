"""How speed scales: with cores, with the batch, with the size of the archive, with megapixels.

    python -m benchmarks.scaling cores                       # the generator on 1, 2, 4 … cores
    python -m benchmarks.scaling pinning                     # the generator with its threads bound to cores
    python -m benchmarks.scaling batch --model summer2winter
    python -m benchmarks.scaling archive --counts 100 1000 10000 100000
    python -m benchmarks.scaling megapixels --megapixels 1 4 16 100

`archive` measures everything but the generator, which an inversion of the pixels replaces: rate, processor time and
memory, and a second run over the finished archive. `megapixels` measures the exact tiling of whole photos
(`benchmarks/full_size.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import full_size
from benchmarks.common import make_model, make_photos, measure_process, report, run, seconds
from engine.archive.convert import convert
from engine.bench.generator import images_per_s, settled
from engine.bench.photos import link_photos
from engine.bench.timing import Spread, alternate
from engine.config import BatchConfig, GenerateConfig, PipelineConfig
from engine.model.card import Architecture, Card, find_model
from engine.model.network import ResnetGenerator
from engine.model.weights import Generator, load_generator
from engine.options import Options, Size
from engine.runtime.translator import BatchTranslator

DIFFERENT = 200
"""Photos of an archive that differ; the rest are links to these."""

BINDINGS: dict[str, dict[str, str]] = {
    "free": {},
    "bound": {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"},
    "bound, waiting asleep": {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores", "OMP_WAIT_POLICY": "passive"},
    "waiting asleep": {"OMP_WAIT_POLICY": "passive"},
}
"""Variables of OpenMP for the threads of the generator. A thread that waits spins by default, which takes a core."""

BUDGET_MB = 4500
"""Memory that tiles may add."""


def main() -> None:
    """Measure what the command line asks for; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cores", "pinning", "batch", "archive", "megapixels"])
    parser.add_argument("--model", help="name or file; random weights by default")
    parser.add_argument("--ngf", type=int, default=64, help="width of the network with random weights")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 10_000, 100_000], help="of archives")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="shortest duration of one measurement")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        _one(arguments)
        return
    with tempfile.TemporaryDirectory() as scratch:
        kinds = {"cores": cores, "pinning": pinning, "batch": batch, "archive": archive, "megapixels": megapixels}
        report(f"scaling-{arguments.what}", kinds[arguments.what](arguments, Path(scratch)))


def cores(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure the generator in processes that may use 1, 2, 4 … of the cores, alternated."""
    usable = sorted(os.sched_getaffinity(0))
    counts = [2**i for i in range(len(usable).bit_length()) if 2**i <= len(usable)]
    counts += [] if len(usable) in counts else [len(usable)]
    model = _model(arguments, scratch)

    def rate(count: int) -> float:
        pinned = ["taskset", "-c", ",".join(map(str, usable[:count]))]
        return _generator_in_process(arguments, pinned, model, scratch)["images_per_s"]

    rates = alternate({str(count): partial(rate, count) for count in counts}, arguments.rounds)
    _show(rates, "cores")
    return {"network": _network(model), "images_per_s": {name: one.to_document() for name, one in rates.items()}}


def pinning(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure the generator with the threads of OpenMP free and bound to cores, each in a process, alternated."""
    model = _model(arguments, scratch)
    cpu_ms: dict[str, list[float]] = {name: [] for name in BINDINGS}

    def rate(name: str) -> float:
        environment = [f"{variable}={value}" for variable, value in BINDINGS[name].items()]
        measured = _generator_in_process(arguments, ["env", *environment], model, scratch)
        cpu_ms[name].append(measured["cpu_ms_per_image"])
        return measured["images_per_s"]

    rates = alternate({name: partial(rate, name) for name in BINDINGS}, arguments.rounds)
    _show(rates, "threads")
    return {
        "network": _network(model),
        "images_per_s": {name: one.to_document() for name, one in rates.items()},
        "cpu_ms_per_image": {
            name: Spread(tuple(values[-arguments.rounds :])).to_document() for name, values in cpu_ms.items()
        },
        "ratio": {name: one.over(rates["free"]).to_document() for name, one in rates.items() if name != "free"},
    }


def batch(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure the generator at 256x256 by batch, alternated."""
    model = _model(arguments, scratch)
    translator = _translator(model, arguments.backend)
    works = {
        str(size): partial(images_per_s, translator, size, 256, 1, arguments.seconds) for size in arguments.batches
    }
    rates = alternate(works, arguments.rounds)
    _show(rates, "images in a batch")
    return {
        "network": _network(model),
        "backend": translator.reason,
        "images_per_s": {name: one.to_document() for name, one in rates.items()},
    }


def archive(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Convert archives of different sizes with a stand-in for the generator, each in a process of its own."""
    make_photos(scratch / "photos", min(DIFFERENT, max(arguments.counts)))
    photos = sorted((scratch / "photos").iterdir())
    archives = []
    for count in arguments.counts:
        link_photos(photos, scratch / f"in-{count}", count)
        measured = _converted(scratch / f"in-{count}", scratch / f"out-{count}")
        again_s = seconds(partial(_converted, scratch / f"in-{count}", scratch / f"out-{count}"))
        archives.append(
            {
                "images": count,
                "images_per_s": round(measured["images_per_s"], 1),
                "cpu_ms_per_image": round(measured["cpu_s"] / count * 1e3, 3),
                "peak_megabytes": round(measured["peak_bytes"] / 1e6),
                "second_run_s": round(again_s, 2),
            }
        )
        print(archives[-1], flush=True)
    return {"archives": archives}


def megapixels(arguments: argparse.Namespace, _: Path) -> dict[str, Any]:
    """Translate one photo of each size in tiles, each in a process of its own."""
    arch = Architecture(ngf=arguments.ngf)
    with torch.inference_mode():
        ceiling = full_size.ceiling_mp_s(arch)
        print(f"ceiling {ceiling:.2f} MP/s: all arithmetic at the rate of a residual convolution", flush=True)
        sizes = [full_size.scaling(arch, size, BUDGET_MB) for size in arguments.megapixels]
    return {"network": f"ResNet-{arch.blocks} ngf {arch.ngf}", "ceiling_mp_per_s": round(ceiling, 3), "sizes": sizes}


def invert(pixels_NHWC: Tensor) -> Tensor:
    """Stand in for a generator."""
    return torch.from_numpy(255 - pixels_NHWC.numpy())


def _one(arguments: argparse.Namespace) -> None:
    """Measure one value of one kind in this process."""
    if arguments.what == "cores":
        model, output = arguments.one
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        translator = _translator(Path(model), arguments.backend)
        cpu_before_s, started_s = time.process_time(), time.perf_counter()
        rate = images_per_s(translator, 4, 256, 1, arguments.seconds)
        cores_used = (time.process_time() - cpu_before_s) / (time.perf_counter() - started_s)
        Path(output).write_text(json.dumps({"images_per_s": rate, "cpu_ms_per_image": cores_used / rate * 1e3}))
        return
    src, dst = map(Path, arguments.one)
    generator = Generator(ResnetGenerator(Architecture(ngf=4, blocks=1)), Card(name="invert"), "invert")
    config = PipelineConfig(options=Options(size=Size.parse("256x256")), batch=BatchConfig(size=8))
    cpu_before_s = time.process_time()
    summary = convert(src, dst, generator, config, translate=lambda _: invert)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {"images_per_s": summary.images_per_second, "peak_bytes": peak_bytes}
    print(json.dumps({**result, "cpu_s": time.process_time() - cpu_before_s}))


def _generator_in_process(
    arguments: argparse.Namespace, prefix: list[str], model: Path, scratch: Path
) -> dict[str, float]:
    """Measure the generator in a process of its own, started behind `prefix`, a command that runs another one."""
    command = [sys.executable, "-m", "benchmarks.scaling", "cores", "--backend", arguments.backend]
    output = scratch / "rate.json"
    measure_process([*prefix, *command, "--seconds", arguments.seconds, "--one", model, output])
    measured: dict[str, float] = json.loads(output.read_text())
    return measured


def _converted(src: Path, dst: Path) -> dict[str, float]:
    shown = run("-m", "benchmarks.scaling", "archive", "--one", src, dst).stdout
    result: dict[str, float] = json.loads(shown.splitlines()[-1])
    return result


def _translator(model: Path, backend: Any) -> BatchTranslator:
    generator = load_generator(model)
    return BatchTranslator(generator, settled(generator, GenerateConfig(device="cpu", backend=backend)))


def _model(arguments: argparse.Namespace, scratch: Path) -> Path:
    if arguments.model:
        return find_model(arguments.model)
    return make_model(scratch / "model.safetensors", arguments.ngf)


def _network(model: Path) -> str:
    arch = load_generator(model).module.arch
    return f"ResNet-{arch.blocks} ngf {arch.ngf}"


def _show(rates: dict[str, Spread], unit: str) -> None:
    for name, one in rates.items():
        print(f"{name:>6} {unit}: {one.median:.2f} images/s", flush=True)


if __name__ == "__main__":
    main()
