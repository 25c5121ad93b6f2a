"""InstanceNorm over bands equals InstanceNorm over the whole image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.runtime.tiled.norm import WholeImageNorm


def through(norm: WholeImageNorm, image: Tensor, rows: int) -> Tensor:
    bands = torch.split(image, rows, dim=2)
    assert all(torch.equal(a, b) for a, b in zip(norm.watch(bands), bands, strict=True))
    return torch.cat(list(norm.normalise(bands)), dim=2)


@pytest.mark.parametrize("rows", [1, 5, 32])
@pytest.mark.parametrize("affine", [False, True])
def test_statistics_of_the_image(rows: int, affine: bool) -> None:
    image = torch.randn(1, 8, 32, 20) * 3 + 5
    layer = nn.InstanceNorm2d(8, affine=affine).eval().requires_grad_(False)
    if affine:
        layer.weight.uniform_(0.5, 2)
        layer.bias.normal_()
    torch.testing.assert_close(through(WholeImageNorm(layer), image, rows), layer(image), rtol=0, atol=1e-5)


def test_stored_statistics() -> None:
    layer = nn.InstanceNorm2d(8, track_running_stats=True).eval()
    assert layer.running_mean is not None
    assert layer.running_var is not None
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    image = torch.randn(1, 8, 32, 20)
    torch.testing.assert_close(through(WholeImageNorm(layer), image, 5), layer(image), rtol=0, atol=1e-5)


def test_a_large_mean_costs_no_accuracy() -> None:
    """A difference of two large sums would be wrong: its error here is larger than the variance."""
    image = torch.randn(1, 4, 512, 64, dtype=torch.float64) * 0.01 + 100
    layer = nn.InstanceNorm2d(4)
    result = through(WholeImageNorm(layer), image.float(), 16)
    torch.testing.assert_close(result.double(), layer(image.float().double()), rtol=0, atol=0.01)


def test_bfloat16_bands_get_float32_statistics() -> None:
    image = (torch.randn(1, 8, 256, 64) + 3).bfloat16()
    norm = WholeImageNorm(nn.InstanceNorm2d(8))
    result = through(norm, image, 16)
    assert result.dtype == torch.bfloat16
    assert result.float().mean((0, 2, 3)).abs().max() < 1e-3


def test_a_scaled_input_has_the_same_result() -> None:
    image = torch.randn(1, 8, 32, 20) * 1e-3  # with a variance near eps an ignored scale changes the result
    layer = nn.InstanceNorm2d(8)
    result = through(WholeImageNorm(layer, 0.5), image * 0.5 + 7, 8)
    torch.testing.assert_close(result, layer(image), rtol=0, atol=2e-3)
    assert (through(WholeImageNorm(layer), image * 0.5 + 7, 8) - layer(image)).abs().max() > 0.1
