"""The generator on OpenVINO and ONNX Runtime beside Solstice's backends, alternated, from bytes to bytes.

All of them run the same weights and the same conversions from and to uint8. OpenVINO runs in bf16 where the processor
computes in it, ONNX Runtime in fp32, which is all that its CPU provider offers for these layers. A runtime that is not
installed, or refuses the network, is left out with the reason (`pip install --group bench`).

    python -m benchmarks.runtimes                            # the published network, random weights
    python -m benchmarks.runtimes --model summer2winter --batches 1 4 16
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import make_model, report
from engine.bench.ceilings import Machine, generator_gflop
from engine.bench.generator import images_per_s, settled
from engine.bench.timing import alternate
from engine.config import GenerateConfig, num_cores
from engine.errors import first_line
from engine.model.upsampling import folded_for_inference
from engine.model.weights import Generator, load_generator
from engine.runtime.backends.base import PixelGenerator
from engine.runtime.backends.openvino import traced
from engine.runtime.translator import BatchTranslator
from engine.system.device import fastest_precision

CPU = torch.device("cpu")
Translate = Callable[[Tensor], Tensor]


def main() -> None:
    """Parse, build every runtime, measure in turn, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or file; random weights of the published network by default")
    parser.add_argument("--ngf", type=int, default=64, help="width of the network with random weights")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--side", type=int, default=256, help="pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="shortest duration of one measurement")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or make_model(Path(scratch) / "model.safetensors", arguments.ngf)
        report("runtimes", measure(load_generator(model), Path(scratch), arguments))


def measure(generator: Generator, scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all runtimes at all batch sizes, alternated with the ceiling."""
    built: dict[str, Translate] = {}
    left_out: dict[str, str] = {}
    for name, build in BUILDERS.items():
        try:
            built[name] = build(generator, scratch)
        except Exception as error:  # noqa: BLE001 (a missing runtime must not keep the others from being measured)
            left_out[name] = first_line(error)
            print(f"{name} is left out: {left_out[name]}", flush=True)
    arch, side, seconds = generator.card.architecture, arguments.side, arguments.seconds
    machine = Machine(CPU, fastest_precision(CPU), seconds)
    gflop = generator_gflop(arch, side, side)
    works: dict[str, Callable[[], float]] = {
        f"{name}, batch {batch}": partial(images_per_s, translate, batch, side, 1, seconds)
        for batch in arguments.batches
        for name, translate in built.items()
    }
    works["ceiling"] = lambda: machine.convolution_tflops(arch, 4) * 1e3 / gflop
    rates = alternate(works, arguments.rounds)
    for name, spread in rates.items():
        print(f"{name:32} {spread.median:8.2f} images/s, {spread.over(rates['ceiling']).median:.0%}", flush=True)
    return {
        "network": f"ResNet-{arch.blocks} ngf {arch.ngf}",
        "side": side,
        "images_per_s": {name: spread.to_document() for name, spread in rates.items()},
        "agreement_db": {name: _agreement_db(built["eager fp32"], translate) for name, translate in built.items()},
        "left_out": left_out,
    }


def eager_fp32(generator: Generator, _: Path) -> Translate:
    """Return the module as it is, as the reference implementation runs it."""
    return BatchTranslator(generator, GenerateConfig(device="cpu", backend="eager", precision="fp32"))


def solstice(generator: Generator, _: Path) -> Translate:
    """Return what a large run of Solstice would use."""
    return BatchTranslator(generator, settled(generator, GenerateConfig(device="cpu")))


def direct(generator: Generator, _: Path) -> Translate:
    """Return the same as `solstice` with PyTorch's convolutions in the residual blocks."""
    return BatchTranslator(generator, settled(generator, GenerateConfig(device="cpu", trunk="torch")))


def openvino(generator: Generator, _: Path) -> Translate:
    """Return the network compiled by OpenVINO for throughput of one batch at a time, with dynamic shapes."""
    import openvino as ov

    model = traced(_module(generator), _example())
    model.reshape([-1, -1, -1, 3])
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": num_cores()}
    if fastest_precision(CPU) == "bf16":
        hints["INFERENCE_PRECISION_HINT"] = "bf16"
    compiled = ov.compile_model(model, "CPU", hints)
    return lambda pixels_NHWC: torch.from_numpy(compiled(pixels_NHWC.numpy())[0])


def onnx_runtime(generator: Generator, scratch: Path) -> Translate:
    """Return the network exported to ONNX and run by ONNX Runtime's CPU provider."""
    import onnxruntime

    path = scratch / "generator.onnx"
    dynamic = {"pixels_NHWC": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}}
    torch.onnx.export(_module(generator), (_example(),), path, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_cores()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels_NHWC: torch.from_numpy(session.run(None, {name: pixels_NHWC.numpy()})[0])


BUILDERS: dict[str, Callable[[Generator, Path], Translate]] = {
    "eager fp32": eager_fp32,
    "Solstice": solstice,
    "trunk of PyTorch": direct,
    "OpenVINO": openvino,
    "ONNX Runtime": onnx_runtime,
}


def _module(generator: Generator) -> PixelGenerator:
    return PixelGenerator(folded_for_inference(copy.deepcopy(generator.module)), torch.float32).eval()


def _example() -> Tensor:
    return torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)


def _agreement_db(reference: Translate, translate: Translate) -> float | None:
    """Return the peak signal-to-noise ratio to eager fp32 on random pixels; None where there is no difference."""
    pixels_NHWC = torch.randint(0, 256, (1, 128, 128, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    error = (reference(pixels_NHWC).double() - translate(pixels_NHWC).double()).square().mean().item()
    return None if error == 0 else round(float(10 * np.log10(255**2 / error)), 1)


if __name__ == "__main__":
    main()
