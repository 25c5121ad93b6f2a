"""Build a generator's engine with TensorRT-RTX on a machine that has no GPU, and print its size and its layers.

    python -m tests.engine.runtime.backends.rtx_without_gpu MODEL.safetensors

Torch-TensorRT queries a GPU when it is imported and after it has built an engine; its converters and the builder need
none if the target is set. So its queries are answered here with an L4 (SM 8.9), and the engine is taken from the
builder before it would be loaded. Conversion itself is not changed.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from engine.model.weights import load_generator
from engine.runtime.backends.tensorrt import Profile, convert, export


class Built(Exception):
    """Carries the built engine out of Torch-TensorRT, which would load it next."""

    def __init__(self, engine: bytes, layers: dict[str, int]) -> None:
        super().__init__()
        self.engine = engine
        self.layers = layers


def pretend_gpu() -> None:
    """Replace the queries that Torch-TensorRT makes on import, and its runtime library, which needs CUDA."""
    cuda: Any = torch.cuda
    cuda.get_device_capability = lambda *_: (8, 9)
    cuda.current_device = lambda: 0
    cuda.mem_get_info = lambda *_: (20 << 30, 24 << 30)
    if not hasattr(torch._C, "_CudaDeviceProperties"):
        torch._C._CudaDeviceProperties = object  # type: ignore[misc, assignment]
    is_file = os.path.isfile
    os.path.isfile = lambda path: "libtorchtrt" not in str(path) and is_file(path)


def build_for_sm89() -> None:
    """Make Torch-TensorRT's interpreter build for SM 8.9 and raise the engine to the caller."""
    import tensorrt as trt  # Torch-TensorRT's stand-in for tensorrt_rtx
    from torch_tensorrt.dynamo.conversion._TRTInterpreter import TRTInterpreter

    def run(self: Any, *_: object) -> None:
        self._construct_trt_network_def()
        config = self._populate_trt_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)
        engine = self.builder.build_serialized_network(self.ctx.net, config)
        assert engine is not None, "the builder refused the network"
        net = self.ctx.net
        layers = (net.get_layer(i) for i in range(net.num_layers))
        raise Built(bytes(engine), Counter(f"{layer.type.name} {layer.get_output(0).dtype.name}" for layer in layers))

    TRTInterpreter.run = run


def main() -> None:
    """Build and print one line of JSON."""
    pretend_gpu()
    import torch_tensorrt  # noqa: F401 (registers the converters and the stand-in)

    build_for_sm89()
    profile = Profile.for_side(256)
    module = load_generator(Path(sys.argv[1])).module
    try:
        program = export(module, torch.float16, profile, torch.device("cpu"))
        convert(program, torch.float16, profile.shapes(module.arch), torch.device("cuda", 0))
    except Exception as error:
        built = error
        while not isinstance(built, Built):
            if built.__cause__ is None:
                raise
            built = built.__cause__  # type: ignore[assignment]
        print(json.dumps({"bytes": len(built.engine), "layers": built.layers}))


if __name__ == "__main__":
    main()
