"""Count the bytes that the compiled generator moves, by kind of kernel, as TorchInductor's scheduler counts them.

Shows what is fused and what a hand-written kernel could still save. Nothing is timed, so no GPU is needed.

    python -m benchmarks.traffic                # ResNet-9, ngf 64, 16 images of 256x256
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch._inductor import config
from torch._inductor.graph import GraphLowering

from benchmarks.common import report
from engine.model.card import Architecture
from engine.model.network import ResnetGenerator
from engine.model.upsampling import folded_for_inference
from engine.runtime.backends.base import PixelGenerator

_DTYPE = torch.bfloat16  # two bytes, as fp16 on a GPU


def main() -> None:
    """Compile, and print megabytes per image by kind of kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--ngf", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=9)
    arguments = parser.parse_args()
    generator = ResnetGenerator(Architecture(ngf=arguments.ngf, blocks=arguments.blocks)).eval()
    moved = traffic(generator, arguments.batch, arguments.side)
    report("traffic", {**vars(arguments), "mb_per_image": moved, "total_mb_per_image": round(sum(moved.values()), 1)})


def traffic(generator: ResnetGenerator, batch: int, side: int) -> dict[str, float]:
    """Return megabytes read and written per image of a batch, by kind of kernel."""
    module = PixelGenerator(folded_for_inference(generator), _DTYPE).eval()
    moved: Counter[str] = Counter()
    with torch.inference_mode(mode=False), torch.no_grad(), _counting(moved):
        torch.compile(module)(torch.zeros(batch, side, side, 3, dtype=torch.uint8))
    return {kind: round(num_bytes / batch / 1e6, 1) for kind, num_bytes in moved.items()}


@contextmanager
def _counting(moved: Counter[str]) -> Iterator[None]:
    codegen = GraphLowering.codegen

    def counted(graph: GraphLowering) -> Any:
        code = codegen(graph)
        for node in graph.scheduler.nodes:
            moved[_kind(node)] += node.get_read_write_buffers_sizes()
        return code

    with patch.object(GraphLowering, "codegen", counted), config.patch(force_disable_caches=True):
        yield


def _kind(node: Any) -> str:
    """Return the kind of a kernel, judged by the operators that were fused into it."""
    if node.is_extern():
        return "convolution"
    if node.is_reduction():
        return "statistics of InstanceNorm"
    operators = {str(origin.target) for part in node.get_nodes() for origin in part.node.origins}
    norm = any("rsqrt" in operator for operator in operators)
    return "InstanceNorm with ReLU, residual and padding" if norm else "pixels, padding alone"


if __name__ == "__main__":
    main()
