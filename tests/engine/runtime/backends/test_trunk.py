"""Kernels of the trunk: run by Triton's interpreter, and compiled for a Hopper GPU; only running that needs the GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import BackendUnavailable
from engine.model.card import Architecture, Card
from engine.model.inference import InferenceGenerator
from engine.model.network import ResnetGenerator, build_generator
from engine.model.weights import Generator, load_generator, save_generator
from engine.runtime.backends.base import KernelOptions
from engine.runtime.backends.eager import EagerBackend
from engine.runtime.backends.inductor import Bounds, _export
from engine.runtime.parity import compare
from tests.engine.model.variants import VARIANTS


@pytest.mark.needs_triton
def test_the_interpreted_trunk_agrees_with_float64_for_every_shape() -> None:
    """The tolerance is the rounding of half precision. Results do not depend on other images of the batch."""
    command = [sys.executable, "-m", "tests.engine.runtime.backends.trunk_interpreted"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    errors = json.loads(shown.stdout)
    assert len(errors) >= 6
    for case, error in errors.items():
        assert error["relative"] < 0.004, case
        assert error["alone"] == 0, case


@pytest.mark.needs_triton
def test_the_kernels_compile_to_matrix_instructions_and_wide_stores_of_a_hopper_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from engine.runtime.backends import trunk, trunk_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def assembly(kernel: Any, types: dict[str, str], constants: dict[str, int], warps: int = 4) -> str:
        signature = types | dict.fromkeys(constants, "constexpr")
        pointers = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
        source = ASTSource(kernel, signature, constants, pointers)
        target = GPUTarget("cuda", 90, 32)
        compiled = compile(source, target=target, options={"num_warps": warps, "enable_fp_fusion": True})
        assert compiled.metadata.shared <= 232_448, "bytes of shared memory that a program may have"
        ptx = str(compiled.asm["ptx"])
        assert "ld.local" not in ptx, "values stay in registers"
        return ptx

    half, single, sides = "*fp16", "*fp32", {"H": "i32", "W": "i32"}
    tiling = trunk.TILING
    ptx = assembly(
        trunk_kernels.convolve,
        {"x": half, "weight": half, "made": half, "sums": single, **sides, "tiles": "i32"},
        {"C": 256, "ROWS": tiling.rows, "COLUMNS": 256, "DEPTH": tiling.depth, "STAGES": tiling.stages},
        tiling.warps,
    )
    assert "wgmma.mma_async.sync.aligned.m64n256k16.f32.f16.f16" in ptx
    assert "cp.async" in ptx, "inputs of the next products are loaded beside the present one"
    assembly(
        trunk_kernels.statistics,
        {
            "sums": single,
            "norm_weight": single,
            "norm_bias": single,
            "scales": single,
            **sides,
            "tiles": "i32",
            "eps": "fp32",
        },
        {"C": 256, "ROWS": tiling.rows, "CHANNELS": trunk._STATISTICS_CHANNELS, "TILES": trunk._STATISTICS_TILES},
    )
    ptx = assembly(
        trunk_kernels.apply,
        {"made": half, "scales": single, "residual": half, "padded": half, **sides},
        {"C": 256, "ROWS": trunk._APPLY_ROWS, "RESIDUAL": 1},
    )
    assert "st.global.v4" in ptx, "sixteen bytes at once"


@pytest.mark.needs_triton
def test_a_generator_with_the_trunk_exports_for_any_batch_and_size() -> None:
    module = ResnetGenerator(Architecture(blocks=1, ngf=4)).eval()
    rewritten = InferenceGenerator(module, torch.float16, compiled=True, norm_by_rows=False)
    from engine.runtime.backends.trunk import use_triton_trunk

    with torch.no_grad():
        program = _export(use_triton_trunk(rewritten, module), 4, torch.device("cpu"), Bounds(images=64, side=512))
    assert [str(node.target) for node in program.graph.nodes].count("solstice.conv_norm.default") == 2


@pytest.mark.needs_triton
@pytest.mark.parametrize(
    ("arch", "dtype", "need"),
    [
        (VARIANTS["unet, batch"], torch.float16, "a ResNet"),
        (VARIANTS["no norm, replicate"], torch.float16, "reflection padding"),
        (Architecture(blocks=1, ngf=4, affine=True, track_running_stats=True), torch.float16, "running statistics"),
        (Architecture(blocks=1, ngf=6), torch.float16, "power of two, at least 4"),
        (Architecture(blocks=1, ngf=4), torch.bfloat16, "fp16"),
    ],
)
def test_a_generator_that_the_trunk_does_not_support_is_refused_with_the_reason(
    arch: Architecture, dtype: torch.dtype, need: str
) -> None:
    from engine.runtime.backends.trunk import use_triton_trunk

    module = build_generator(arch)
    with pytest.raises(BackendUnavailable, match=rf"{need}.*; leave out --trunk triton"):
        use_triton_trunk(InferenceGenerator(module, dtype), module)


@pytest.fixture
def wide_generator(tmp_path: Path) -> Generator:
    """Return a generator with the trunk's usual 256 channels."""
    torch.manual_seed(9)
    arch = Architecture(ngf=64, blocks=2)
    save_generator(tmp_path / "wide.safetensors", ResnetGenerator(arch), Card(name="wide", architecture=arch))
    return load_generator(tmp_path / "wide.safetensors")


@pytest.mark.needs_cuda
@pytest.mark.parametrize("graph_pixels", [0, 1_000_000])
def test_eager_with_the_trunk_passes_the_parity_check_on_a_gpu(graph_pixels: int, wide_generator: Generator) -> None:
    """Compiled packages with the trunk take minutes to build; part "variants" of benchmarks/gpu.py checks them."""
    options = KernelOptions(trunk="triton", graph_pixels=graph_pixels)
    backend = EagerBackend(wide_generator, "fp16", torch.device("cuda", 0), options)
    assert len(backend.parity_cases) == (2 if graph_pixels else 1)
    for case in backend.parity_cases:
        assert compare(wide_generator, case.run).passed, case.key
