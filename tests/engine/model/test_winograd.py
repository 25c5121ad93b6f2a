from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.model.card import Architecture
from engine.model.inference import InferenceGenerator
from engine.model.network import ResnetBlock
from engine.model.winograd import WinogradGenerator, WinogradTrunk, tile_table, unfit
from tests.engine.model.variants import VARIANTS, randomised

FITTING = {name: arch for name, arch in VARIANTS.items() if unfit(arch) is None}


def test_generators_with_reflected_residual_blocks_fit_and_others_are_named() -> None:
    assert {"resnet", "affine", "running statistics", "batch", "blur", "gray"} <= set(FITTING)
    assert unfit(VARIANTS["batch, zero"]) == unfit(VARIANTS["no norm, replicate"]) == "reflection padding"
    assert unfit(VARIANTS["unet"]) == "a ResNet"


@pytest.mark.parametrize("size", [4, 5, 6, 7, 64])
def test_a_table_names_the_rows_of_each_tile_with_the_image_reflected(size: int) -> None:
    table = tile_table(size)
    outputs, inputs = table[:2], table[2:]
    assert outputs.T.flatten()[:size].tolist() == list(range(size))
    for tile in range(table.shape[1]):
        for i, phase in enumerate((1, 0, 1, 0)):
            row = 2 * tile + i - 1
            if row <= size:  # the last row of the last tile of an odd size has no output within the image
                reflected = size - 1 - abs(size - 1 - abs(row))
                assert 2 * inputs[i, tile] + phase == reflected
    assert inputs.min() >= 0
    assert inputs.max() <= (size - 1) // 2


@pytest.mark.parametrize("size", [(4, 4), (5, 8), (6, 7), (9, 13)])
@pytest.mark.parametrize(
    "arch",
    [
        Architecture(blocks=2, ngf=4),
        Architecture(blocks=2, ngf=4, affine=True),
        Architecture(blocks=2, ngf=4, affine=True, track_running_stats=True),
    ],
)
def test_blocks_agree_with_convolutions_in_float64(arch: Architecture, size: tuple[int, int]) -> None:
    blocks = [layer.double() for layer in randomised(arch).eval().modules() if isinstance(layer, ResnetBlock)]
    x = torch.randn((1, 16, *size), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = WinogradTrunk(blocks, torch.float64).eval()(x, *(tile_table(side) for side in size))
    expected = nn.Sequential(*blocks)(x)
    # Norms are float32 in both dtypes of the product.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [(16, 16), (20, 28), (32, 36)])
@pytest.mark.parametrize("arch", FITTING.values(), ids=FITTING.keys())
def test_a_generator_gives_the_pixels_of_the_inference_network(arch: Architecture, size: tuple[int, int]) -> None:
    generator = randomised(arch).eval()
    direct = InferenceGenerator(generator, torch.float32, compiled=True)
    winograd = WinogradGenerator(generator, InferenceGenerator(generator, torch.float32, compiled=True))
    pixels_NHWC = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    found = winograd(pixels_NHWC, *(tile_table(side // arch.stride) for side in size))
    assert (found.int() - direct(pixels_NHWC).int()).abs().max() <= 1
    assert found.float().std() > 1


def test_rows_beyond_an_odd_image_do_not_count_in_its_statistics() -> None:
    """A bright border makes them differ from the image, which would shift its mean."""
    arch = Architecture(blocks=1, ngf=4)
    (block,) = (layer for layer in randomised(arch).eval().modules() if isinstance(layer, ResnetBlock))
    x = torch.zeros(1, 16, 5, 5)
    x[:, :, -2:] = 50.0
    found = WinogradTrunk([block], torch.float32).eval()(x, tile_table(5), tile_table(5))
    torch.testing.assert_close(found, block(x), rtol=0, atol=1e-3)
