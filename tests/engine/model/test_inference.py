"""The rewritten generator is the same function as the generator."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from engine.model.card import Architecture
from engine.model.inference import ConvByRows, EagerNorm, FusedNorm, InferenceGenerator
from engine.runtime.backends.base import PixelGenerator
from tests.engine.model.variants import VARIANTS, randomised
from tests.images import psnr_db

KINDS = {name: VARIANTS[name] for name in ("resnet", "running statistics", "resize, residual", "batch", "blur", "unet")}


def pixels(count: int, height: int, width: int) -> Tensor:
    return torch.randint(
        0, 256, (count, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("arch", VARIANTS.values(), ids=VARIANTS.keys())
def test_in_float32_it_gives_the_pixels_of_the_module(arch: Architecture, compiled: bool) -> None:
    module = randomised(arch)
    rewritten = InferenceGenerator(module, torch.float32, compiled=compiled)
    reference = PixelGenerator(copy.deepcopy(module), torch.float32)
    shapes = ((1, 1, 1), (3, 1, 2)) if arch.network == "unet" else ((1, 4, 4), (3, 5, 9), (1, 16, 12))
    for count, rows, columns in shapes:
        x = pixels(count, rows * arch.stride, columns * arch.stride)
        with torch.no_grad():
            assert (rewritten(x).int() - reference(x).int()).abs().max() <= 1


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("arch", KINDS.values(), ids=KINDS.keys())
def test_in_bfloat16_it_is_nearer_to_float32_than_the_module_is(arch: Architecture, compiled: bool) -> None:
    module, x = randomised(arch), pixels(2, 64, 96)
    with torch.no_grad():
        expected = PixelGenerator(copy.deepcopy(module), torch.float32)(x).numpy()
        plain = psnr_db(PixelGenerator(copy.deepcopy(module), torch.bfloat16)(x).numpy(), expected)
        rewritten = InferenceGenerator(module, torch.bfloat16, compiled=compiled)
        mixed = InferenceGenerator(module, torch.bfloat16, outer_dtype=torch.float32, compiled=compiled)
        assert psnr_db(rewritten(x).numpy(), expected) >= plain - 0.2
        assert psnr_db(mixed(x).numpy(), expected) > plain


def test_only_first_and_last_layers_have_the_outer_dtype() -> None:
    module = InferenceGenerator(randomised(KINDS["resnet"]), torch.bfloat16, outer_dtype=torch.float32)
    outer = {name for name, value in module.named_parameters() if value.dtype == torch.float32}
    assert outer == {"head.1.weight", "head.1.bias"}
    assert module.last[0].weight.dtype == torch.float32


def test_the_generator_stays_as_it_was() -> None:
    module = randomised(KINDS["resize, residual"])
    before = {key: value.clone() for key, value in module.state_dict().items()}
    InferenceGenerator(module, torch.bfloat16)
    assert module.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize("kind", [FusedNorm, EagerNorm])
@pytest.mark.parametrize("mean", [0.0, 30.0, 3000.0])
def test_norms_agree_with_float64(kind: type[nn.Module], by_rows: bool, mean: float) -> None:
    """Given channels far from zero, then the variance is not lost in the difference of two large sums."""
    x = torch.randn(1, 5, 37, 41, generator=torch.Generator().manual_seed(2)) + mean
    norm = nn.InstanceNorm2d(5)
    made = FusedNorm(norm, by_rows=by_rows)(x) if kind is FusedNorm else EagerNorm(norm)(x)
    tolerance = 1e-5 if mean < 100 else 2e-3  # float32 holds 3000 + x to 1e-4
    torch.testing.assert_close(made.double(), norm(x.double()), atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", [FusedNorm, EagerNorm])
def test_a_constant_channel_becomes_zero(kind: type[nn.Module]) -> None:
    x = torch.full((1, 2, 300, 200), 7.3)
    assert kind(nn.InstanceNorm2d(2))(x).abs().max() < 1e-3


@pytest.mark.parametrize("shifted_sums", [True, False])
def test_a_convolution_by_rows_is_exact(shifted_sums: bool) -> None:
    conv = nn.Conv2d(6, 3, 7).double()
    by_rows = ConvByRows(conv, torch.float64, shifted_sums=shifted_sums)
    x = torch.randn(2, 6, 19, 23, dtype=torch.float64)
    tolerance = 1e-5 if shifted_sums else 1e-12  # sums are float32
    torch.testing.assert_close(by_rows(x).double(), conv(x), atol=tolerance, rtol=0)


def test_a_gray_photo_keeps_its_values_on_the_way_into_a_network_of_one_channel() -> None:
    """Luma of a gray pixel is its value, and a gray result has three equal channels."""
    gray = pixels(2, 16, 20)[..., :1]
    module = randomised(VARIANTS["gray"])
    with torch.no_grad():
        made = InferenceGenerator(module, torch.float32)(gray.expand(-1, -1, -1, 3))
        expected = (module(gray.permute(0, 3, 1, 2) / 127.5 - 1) + 1) * 127.5
    assert (made[..., 0] - expected[:, 0]).abs().max() <= 1
    assert torch.equal(made, made[..., :1].expand(-1, -1, -1, 3))
