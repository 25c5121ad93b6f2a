"""The rewritten generator is the same function as the generator."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from engine.model.card import Architecture
from engine.model.inference import ConvByRows, EagerNorm, FusedNorm, InferenceGenerator
from engine.model.network import ResnetGenerator
from engine.runtime.backends.base import PixelGenerator
from tests.images import psnr_db

KINDS = {
    "plain": Architecture(blocks=2, ngf=8),
    "affine": Architecture(blocks=2, ngf=8, affine=True),
    "running statistics": Architecture(blocks=2, ngf=8, affine=True, track_running_stats=True),
    "resize": Architecture(blocks=2, ngf=8, upsample="resize"),
    "residual": Architecture(blocks=2, ngf=8, learn_residual=True),
}


def randomised(arch: Architecture) -> ResnetGenerator:
    """Return a generator whose norms have parameters and statistics other than their defaults."""
    torch.manual_seed(4)
    module = ResnetGenerator(arch).eval().requires_grad_(False)
    for norm in module.modules():
        if isinstance(norm, nn.InstanceNorm2d):
            for name, values in (*norm.named_parameters(), *norm.named_buffers()):
                if values.is_floating_point():
                    values.uniform_(0.5, 1.5) if name in ("weight", "running_var") else values.uniform_(-0.5, 0.5)
    return module


def pixels(count: int, height: int, width: int) -> Tensor:
    return torch.randint(
        0, 256, (count, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("arch", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 20, 36), (1, 64, 48)])
def test_in_float32_it_gives_the_pixels_of_the_module(
    arch: Architecture, compiled: bool, shape: tuple[int, int, int]
) -> None:
    module = randomised(arch)
    rewritten = InferenceGenerator(module, torch.float32, compiled=compiled)
    with torch.no_grad():
        expected = PixelGenerator(copy.deepcopy(module), torch.float32)(pixels(*shape))
        assert (rewritten(pixels(*shape)).int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("arch", KINDS.values(), ids=KINDS.keys())
def test_in_bfloat16_it_is_nearer_to_float32_than_the_module_is(arch: Architecture, compiled: bool) -> None:
    module, x = randomised(arch), pixels(2, 48, 64)
    with torch.no_grad():
        expected = PixelGenerator(copy.deepcopy(module), torch.float32)(x).numpy()
        plain = psnr_db(PixelGenerator(copy.deepcopy(module), torch.bfloat16)(x).numpy(), expected)
        rewritten = InferenceGenerator(module, torch.bfloat16, compiled=compiled)
        mixed = InferenceGenerator(module, torch.bfloat16, outer_dtype=torch.float32, compiled=compiled)
        assert psnr_db(rewritten(x).numpy(), expected) >= plain - 0.2
        assert psnr_db(mixed(x).numpy(), expected) > plain


def test_only_first_and_last_layers_have_the_outer_dtype() -> None:
    module = InferenceGenerator(randomised(KINDS["plain"]), torch.bfloat16, outer_dtype=torch.float32)
    outer = {name for name, value in module.named_parameters() if value.dtype == torch.float32}
    assert outer == {"head.1.weight", "head.1.bias"}
    assert module.last[0].weight.dtype == torch.float32


def test_the_generator_stays_as_it_was() -> None:
    module = randomised(KINDS["resize"])
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
