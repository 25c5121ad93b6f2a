"""Tiled translation is whole-image translation, within a memory budget."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from engine.errors import SkipImage
from engine.model.card import Architecture
from engine.model.network import ResnetGenerator
from engine.model.pixels import to_network
from engine.runtime.tiled.translate import TilePlan, plan_tiles, translate_tiled, translated_bands, whole_image_bytes
from tests import ROOT

COMPACT = Architecture(blocks=2, ngf=8)
FULL = Architecture()
SIZES = [(16, 16), (36, 100), (128, 20), (64, 48)]
RANGE = 2.0  # the network's output is in [-1, 1]


def generator(arch: Architecture) -> ResnetGenerator:
    """Make a generator with weights that leave no layer without effect."""
    torch.manual_seed(0)
    module = ResnetGenerator(arch).eval().requires_grad_(False)
    for layer in module.modules():
        if isinstance(layer, nn.InstanceNorm2d) and arch.affine:
            layer.weight.uniform_(0.5, 2)
            layer.bias.normal_()
        if isinstance(layer, nn.InstanceNorm2d) and layer.running_mean is not None:
            assert layer.running_var is not None
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return module


def photo(height: int, width: int) -> Tensor:
    """Make soft shapes, a horizon and grain: uint8 [H, W, 3]."""
    y = torch.linspace(0, 1, height)[:, None, None]
    x = torch.linspace(0, 1, width)[None, :, None]
    hue = torch.tensor([0.0, 1.0, 2.0])
    picture = 0.5 + 0.3 * torch.sin(5 * x + 3 * y + hue) + 0.2 * (y > 0.4 + 0.1 * torch.sin(9 * x))
    grain = 0.05 * torch.randn(height, width, 1, generator=torch.Generator().manual_seed(1))
    return ((picture + grain) * 255).clamp(0, 255).to(torch.uint8)


def whole(module: ResnetGenerator, pixels_HWC: Tensor) -> Tensor:
    with torch.inference_mode():
        result: Tensor = module(to_network(pixels_HWC[None]))
    return result


def tiled(module: ResnetGenerator, pixels_HWC: Tensor, plan: TilePlan) -> Tensor:
    return torch.cat(list(translated_bands(module, pixels_HWC, plan)), dim=2)


@pytest.mark.parametrize(("quarter_rows", "full_rows"), [(1, 1), (5, 2), (1000, 1000)])
@pytest.mark.parametrize(
    "arch",
    [
        COMPACT,
        Architecture(blocks=1, ngf=8, upsample="resize"),
        Architecture(blocks=1, ngf=8, affine=True),
        Architecture(blocks=1, ngf=8, track_running_stats=True),
        Architecture(blocks=1, ngf=8, affine=True, track_running_stats=True, upsample="resize"),
        Architecture(blocks=1, ngf=8, upsample="resize", learn_residual=True),
    ],
    ids=str,
)
def test_compact_generators_in_float32(arch: Architecture, quarter_rows: int, full_rows: int) -> None:
    module = generator(arch)
    plan = TilePlan(quarter_rows=quarter_rows, full_rows=full_rows, in_file=False)
    for height, width in SIZES:
        pixels = photo(height, width)
        difference = (tiled(module, pixels, plan) - whole(module, pixels)).abs().max().item()
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


def test_the_plan_follows_the_budget() -> None:
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


def test_a_budget_too_small_says_what_is_needed() -> None:
    with pytest.raises(SkipImage, match=r"60000x16 pixels needs \d+ MB"):
        plan_tiles(FULL, 16, 60_000, torch.bfloat16, budget_bytes=100 << 20)


def test_a_full_disk_says_what_is_needed(tmp_path: Path) -> None:
    module = generator(COMPACT)
    with pytest.raises(SkipImage, match="GB of temporary disk"):
        translate_tiled(module, photo(8192, 64), budget_bytes=36_000_000, spill_folder=tmp_path / "missing")


MEASURE = """
import sys, torch
from engine.model.card import Architecture
from engine.model.network import ResnetGenerator
from engine.model.pixels import to_network, to_pixels
from engine.runtime.tiled.translate import translate_tiled

def resident(which):
    # Not getrusage: its peak is inherited from the process that started this one.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024

def translate(pixels):
    if budget_bytes:
        return translate_tiled(module, pixels, budget_bytes=budget_bytes)
    with torch.inference_mode():
        return to_pixels(module(to_network(pixels[None], torch.bfloat16)))

upsample, height, width, budget_bytes = sys.argv[1], *map(int, sys.argv[2:])
module = ResnetGenerator(Architecture(blocks=1, ngf=16, upsample=upsample)).eval().bfloat16()
translate(torch.zeros((16, 64, 3), dtype=torch.uint8))
pixels = torch.zeros((height, width, 3), dtype=torch.uint8).random_(0, 256)
before = resident("VmRSS")
translate(pixels)
print(resident("VmHWM") - before)
"""


def peak_bytes(upsample: str, height: int, width: int, budget_bytes: int) -> int:
    """Measure in a process of its own what a translation adds to its memory; budget 0 is the whole image."""
    command = [sys.executable, "-c", MEASURE, upsample, str(height), str(width), str(budget_bytes)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)


@pytest.mark.parametrize(
    ("upsample", "height", "width", "budget_mb"),
    [
        ("transpose", 1024, 1024, 64),  # tables in a file
        ("resize", 512, 2048, 150),
        ("transpose", 16, 32_000, 200),  # bands of 4 rows
        ("transpose", 32_000, 16, 100),
    ],
)
def test_memory_stays_below_the_budget(upsample: str, height: int, width: int, budget_mb: int) -> None:
    assert peak_bytes(upsample, height, width, budget_mb * 1_000_000) < budget_mb * 1_000_000


@pytest.mark.parametrize("upsample", ["transpose", "resize"])
def test_the_memory_of_a_whole_image_is_foretold(upsample: str) -> None:
    arch = Architecture(blocks=1, ngf=16, upsample="resize" if upsample == "resize" else "transpose")
    foretold = whole_image_bytes(arch, 1536, 2048, torch.bfloat16)
    assert 0.6 * foretold < peak_bytes(upsample, 1536, 2048, 0) <= foretold
