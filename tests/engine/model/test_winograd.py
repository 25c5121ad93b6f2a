from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.model import winograd
from engine.model.card import Architecture
from engine.model.inference import InferenceGenerator
from engine.model.network import GeneratorNetwork, ResnetBlock
from engine.model.winograd import WinogradGenerator, tile_table, unfit, winograd_layers, winograd_parts
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


def through_blocks(generator: GeneratorNetwork, x: Tensor) -> Tensor:
    """Map [1, C, H, W] through the residual blocks of `generator`, in the dtype of `x`."""
    inference = InferenceGenerator(generator, x.dtype, compiled=True)
    parts = winograd_parts(generator, inference)
    rows, columns = (tile_table(side) for side in x.shape[2:])
    phases = x[0].permute(1, 2, 0)[rows[:2].T[:, :, None, None], columns[:2]].contiguous()
    made = WinogradGenerator(parts, winograd_layers(generator, x.dtype), 4).blocks(phases, rows, columns)
    return made.transpose(2, 3).flatten(0, 1).flatten(1, 2)[: x.shape[2], : x.shape[3]].permute(2, 0, 1)[None]


BLOCKS = {
    "instance": Architecture(blocks=2, ngf=4),
    "affine": Architecture(blocks=2, ngf=4, affine=True),
    "running statistics": Architecture(blocks=2, ngf=4, affine=True, track_running_stats=True),
    "batch": Architecture(blocks=2, ngf=4, norm="batch", bias=False),
}


@pytest.mark.parametrize("band_bytes", [1, 1 << 20])
@pytest.mark.parametrize("size", [(4, 4), (5, 8), (6, 7), (9, 13)])
@pytest.mark.parametrize("arch", BLOCKS.values(), ids=BLOCKS.keys())
def test_blocks_agree_with_convolutions_in_float64(
    arch: Architecture, size: tuple[int, int], band_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bands of a single row of tiles as in a single band."""
    monkeypatch.setattr(winograd, "BAND_BYTES", band_bytes)
    generator = randomised(arch).eval().double()
    x = torch.randn((1, 16, *size), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = nn.Sequential(*(layer for layer in generator.modules() if isinstance(layer, ResnetBlock)))(x)
    # Norms are float32 in both dtypes of the product.
    torch.testing.assert_close(through_blocks(generator, x), expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("size", [(16, 16), (20, 28), (32, 36)])
@pytest.mark.parametrize("arch", FITTING.values(), ids=FITTING.keys())
def test_a_generator_gives_the_pixels_of_the_inference_network(arch: Architecture, size: tuple[int, int]) -> None:
    generator = randomised(arch).eval()
    direct = InferenceGenerator(generator, torch.float32, compiled=True)
    parts = winograd_parts(generator, InferenceGenerator(generator, torch.float32, compiled=True))
    translate = WinogradGenerator(parts, winograd_layers(generator, torch.float32), arch.stride)
    pixels_NHWC = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    found = translate(pixels_NHWC)
    assert (found.int() - direct(pixels_NHWC).int()).abs().max() <= 1
    assert found.float().std() > 1


def test_rows_beyond_an_odd_image_do_not_count_in_its_statistics() -> None:
    """A bright border makes them differ from the image, which would shift its mean."""
    generator = randomised(Architecture(blocks=1, ngf=4)).eval()
    (block,) = (layer for layer in generator.modules() if isinstance(layer, ResnetBlock))
    x = torch.zeros(1, 16, 5, 5)
    x[:, :, -2:] = 50.0
    torch.testing.assert_close(through_blocks(generator, x), block(x), rtol=0, atol=1e-3)


def test_a_convolution_stores_its_inputs_in_bands() -> None:
    """Each band has as many rows of tiles as fit, at least one."""
    bands: list[int] = []

    def convolve(phases: Tensor, kernels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        assert rows.is_contiguous()
        bands.append(rows.shape[1])
        return phases[: rows.shape[1]]

    generator = randomised(Architecture(blocks=1, ngf=4)).eval()
    parts = winograd_parts(generator, InferenceGenerator(generator, torch.float32, compiled=True))
    blocks = WinogradGenerator({**parts, "convolve": convolve}, winograd_layers(generator, torch.float32), 4)
    rows, columns = tile_table(100), tile_table(4096)
    row_bytes = 16 * columns.shape[1] * 16 * 4
    blocks.blocks(torch.zeros((50, 2, 2, columns.shape[1], 16)), rows, columns)
    assert bands[:13] == [winograd.BAND_BYTES // row_bytes] * 12 + [2]
    assert len(bands) == 26
