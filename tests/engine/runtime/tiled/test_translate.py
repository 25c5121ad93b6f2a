"""Tiled translation equals whole-image translation and observes a memory budget."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.errors import SkipImage
from engine.model.card import Architecture
from engine.model.network import ResnetGenerator
from engine.model.pixels import to_network
from engine.runtime.tiled.translate import (
    TilePlan,
    cast_layers,
    plan_tiles,
    require_memory,
    translate_tiled,
    translated_bands,
    whole_image_bytes,
)
from tests import ROOT
from tests.engine.model.variants import VARIANTS, randomised

COMPACT = Architecture(blocks=2, ngf=8)
FULL = Architecture()
SIZES = [(16, 16), (36, 100), (128, 20), (64, 48)]
RESNETS = {name: arch for name, arch in VARIANTS.items() if arch.network == "resnet"}
RANGE = 2.0  # the network's output is in [-1, 1]


def generator(arch: Architecture) -> ResnetGenerator:
    """Return a generator with fixed random weights."""
    torch.manual_seed(0)
    return ResnetGenerator(arch).eval().requires_grad_(False)


def photo(height: int, width: int) -> Tensor:
    """Return an image of soft shapes, a horizon and grain: uint8 [H, W, 3]."""
    y = torch.linspace(0, 1, height)[:, None, None]
    x = torch.linspace(0, 1, width)[None, :, None]
    hue = torch.tensor([0.0, 1.0, 2.0])
    picture = 0.5 + 0.3 * torch.sin(5 * x + 3 * y + hue) + 0.2 * (y > 0.4 + 0.1 * torch.sin(9 * x))
    grain = 0.05 * torch.randn(height, width, 1, generator=torch.Generator().manual_seed(1))
    return ((picture + grain) * 255).clamp(0, 255).to(torch.uint8)


def whole(module: ResnetGenerator, pixels_HWC: Tensor) -> Tensor:
    with torch.inference_mode():
        result: Tensor = module(to_network(pixels_HWC[None], channels=module.arch.channels_in))
    return result


def tiled(module: ResnetGenerator, pixels_HWC: Tensor, plan: TilePlan) -> Tensor:
    return torch.cat(list(translated_bands(module, pixels_HWC, plan)), dim=2)


@pytest.mark.parametrize(("quarter_rows", "full_rows"), [(1, 1), (5, 2), (1000, 1000)])
@pytest.mark.parametrize("arch", RESNETS.values(), ids=RESNETS.keys())
def test_compact_generators_in_float32(arch: Architecture, quarter_rows: int, full_rows: int) -> None:
    module = randomised(arch)
    assert isinstance(module, ResnetGenerator)
    folded = cast_layers(module, torch.float32, torch.float32)
    plan = TilePlan(quarter_rows=quarter_rows, full_rows=full_rows, in_file=False)
    for height, width in SIZES:
        pixels = photo(height, width)
        want = whole(module, pixels)
        for layers in (module, folded) if arch.norm == "batch" else (module,):
            difference = (tiled(layers, pixels, plan) - want).abs().max().item()
            assert difference < 1e-4 * RANGE, f"{height}x{width}"


@pytest.mark.parametrize("full_rows", [2, 9])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (92, 60)])
def test_full_generator_in_float32(height: int, width: int, full_rows: int) -> None:
    module = generator(FULL)
    pixels = photo(height, width)
    plan = TilePlan(quarter_rows=3 * full_rows, full_rows=full_rows, in_file=False)
    assert (tiled(module, pixels, plan) - whole(module, pixels)).abs().max().item() < 1e-4 * RANGE


@pytest.mark.parametrize("arch", [FULL, Architecture(blocks=9, ngf=32), Architecture(blocks=6, ngf=16)], ids=str)
def test_bfloat16_is_40_db_from_the_whole_image_in_float32(arch: Architecture) -> None:
    module = generator(arch)
    pixels = photo(128, 96)
    want = whole(module, pixels)
    plan = TilePlan(quarter_rows=16, full_rows=3, in_file=False)
    got = tiled(copy.deepcopy(module).bfloat16(), pixels, plan).float()
    psnr = 10 * math.log10(RANGE**2 / (got - want).square().mean().item())
    assert psnr >= 40


def test_tables_in_a_file_change_nothing() -> None:
    module = generator(COMPACT)
    pixels = photo(64, 48)
    in_memory, in_file = (TilePlan(quarter_rows=3, full_rows=2, in_file=in_file) for in_file in (False, True))
    assert torch.equal(tiled(module, pixels, in_file), tiled(module, pixels, in_memory))


def test_the_plan_depends_on_the_budget() -> None:
    plans = [
        plan_tiles(FULL, 8000, 12_000, torch.bfloat16, budget_bytes=budget_bytes)
        for budget_bytes in (560_000_000, 4_000_000_000, 7_000_000_000, 20_000_000_000)
    ]
    assert [plan.in_file for plan in plans] == [True, True, False, False]
    assert plans[0].full_rows < plans[1].full_rows
    assert plans[2].full_rows == plans[3].full_rows


def test_pixels_are_the_rounded_bands() -> None:
    module = generator(COMPACT)
    pixels = photo(64, 48)
    want = (whole(module, pixels)[0].permute(1, 2, 0) + 1) * 127.5
    got = translate_tiled(module, pixels, budget_bytes=1 << 30)
    assert got.dtype == torch.uint8
    assert (got - want).abs().max().item() < 0.501


def test_a_photo_smaller_than_the_receptive_field() -> None:
    module = generator(Architecture(blocks=9, ngf=4))
    pixels = photo(16, 20)
    plan = TilePlan(quarter_rows=1, full_rows=1, in_file=False)
    assert (tiled(module, pixels, plan) - whole(module, pixels)).abs().max().item() < 1e-4 * RANGE


@pytest.mark.parametrize("shape", [(18, 16, 3), (16, 30, 3), (12, 16, 3), (16, 16, 4)])
def test_other_shapes_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        translate_tiled(generator(COMPACT), torch.zeros(shape, dtype=torch.uint8), budget_bytes=1 << 30)


def test_a_budget_that_is_too_small_raises_with_the_needed_size() -> None:
    with pytest.raises(SkipImage, match=r"60000x16 pixels needs \d+ MB"):
        plan_tiles(FULL, 16, 60_000, torch.bfloat16, budget_bytes=100 << 20)


def test_a_u_net_needs_memory_for_the_whole_image() -> None:
    arch = Architecture(network="unet", levels=7)
    enough = whole_image_bytes(arch, 4096, 4096, torch.bfloat16)
    require_memory(arch, 4096, 4096, torch.bfloat16, budget_bytes=enough)
    with pytest.raises(SkipImage, match=r"4096x4096 pixels .* whole images only, which takes about \d+ MB, and \d+ MB"):
        require_memory(arch, 4096, 4096, torch.bfloat16, budget_bytes=enough - 1)


def test_a_full_disk_raises_with_the_needed_size(tmp_path: Path) -> None:
    module = generator(COMPACT)
    with pytest.raises(SkipImage, match="GB of temporary disk"):
        translate_tiled(module, photo(8192, 64), budget_bytes=36_000_000, spill_folder=tmp_path / "missing")


KINDS: dict[str, dict[str, Any]] = {
    "transpose": {"blocks": 1},
    "resize": {"blocks": 1, "upsample": "resize"},
    "blur": {"blocks": 1, "upsample": "blur", "downsample": "blur"},
    "unet": {"network": "unet", "levels": 7},
}

MEASURE = """
import json, sys, torch
from engine.model.card import Architecture
from engine.model.network import build_generator
from engine.model.pixels import to_network, to_pixels
from engine.runtime.tiled.translate import translate_tiled
from engine.system.allocator import keep_freed_memory

assert keep_freed_memory(), "as every command does"

def resident(which):
    # Not getrusage: its peak is inherited from the process that started this one.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024

def translate(pixels):
    if budget_bytes:
        return translate_tiled(module, pixels, budget_bytes=budget_bytes)
    with torch.inference_mode():
        return to_pixels(module(to_network(pixels[None], torch.bfloat16)))

height, width, budget_bytes = map(int, sys.argv[2:])
module = build_generator(Architecture(**json.loads(sys.argv[1]), ngf=16)).eval().bfloat16()
translate(torch.zeros((128, 128, 3), dtype=torch.uint8))
pixels = torch.zeros((height, width, 3), dtype=torch.uint8).random_(0, 256)
before = resident("VmRSS")
translate(pixels)
print(resident("VmHWM") - before)
"""


def peak_bytes(kind: str, height: int, width: int, budget_bytes: int) -> int:
    """Return what a translation adds to the memory of a new process; budget 0 translates the whole image."""
    fields = json.dumps(KINDS[kind])
    command = [sys.executable, "-c", MEASURE, fields, str(height), str(width), str(budget_bytes)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


@pytest.mark.parametrize(
    ("kind", "height", "width", "budget_mb"),
    [
        ("transpose", 1024, 1024, 64),  # tables in a file
        ("resize", 512, 2048, 150),
        ("transpose", 16, 32_000, 200),  # bands of 4 rows
        ("transpose", 32_000, 16, 100),
        ("blur", 512, 768, 70),
    ],
)
def test_memory_stays_below_the_budget(kind: str, height: int, width: int, budget_mb: int) -> None:
    assert peak_bytes(kind, height, width, budget_mb * 1_000_000) < budget_mb * 1_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_of_a_whole_image_is_predicted(kind: str) -> None:
    height, width = (1024, 1536) if kind == "blur" else (1536, 2048)
    foretold = whole_image_bytes(Architecture(**KINDS[kind], ngf=16), height, width, torch.bfloat16)
    least = 0.3 if kind == "unet" else 0.6  # how many of a U-Net's maps fit into gaps that others left varies
    assert least * foretold < peak_bytes(kind, height, width, 0) <= foretold
