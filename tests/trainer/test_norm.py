from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainer.norm import ExactInstanceNorm, use_exact_norms

LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}


def gradient_by_formula(x: Tensor, gradient: Tensor, eps: float) -> Tensor:
    """Return dL/dx of y = (x - mean) / sqrt(variance + eps) for a given dL/dy, all float64 [N, C, H, W].

    dL/dx = (g - mean(g) - y mean(g y)) / sqrt(variance + eps), means over H and W (Ioffe and Szegedy, ICML 2015, with
    one image in place of the batch).
    """
    scale = (x.var((2, 3), unbiased=False, keepdim=True) + eps).rsqrt()
    y = (x - x.mean((2, 3), keepdim=True)) * scale
    return scale * (gradient - gradient.mean((2, 3), keepdim=True) - y * (gradient * y).mean((2, 3), keepdim=True))


def relative_error(norm: nn.Module, batch: int, layout_x: str, layout_gradient: str) -> float:
    random = torch.Generator().manual_seed(batch)
    x, gradient = torch.randn(2, batch, 6, 10, 12, dtype=torch.float64, generator=random)
    expected = gradient_by_formula(x, gradient, eps=1e-5)
    leaf = x.contiguous(memory_format=LAYOUTS[layout_x]).requires_grad_()
    norm(leaf).backward(gradient.contiguous(memory_format=LAYOUTS[layout_gradient]))
    assert leaf.grad is not None
    return float((leaf.grad - expected).norm() / expected.norm())


@pytest.mark.parametrize("layout_gradient", LAYOUTS)
@pytest.mark.parametrize("layout_x", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_gradient_matches_the_formula_in_every_layout(batch: int, layout_x: str, layout_gradient: str) -> None:
    assert relative_error(ExactInstanceNorm(6), batch, layout_x, layout_gradient) < 1e-12


def test_torch_still_has_the_fault_that_is_avoided() -> None:
    # When this fails, torch has mended its kernel and ExactInstanceNorm can go.
    assert relative_error(nn.InstanceNorm2d(6), 1, "NCHW", "channels-last") > 0.5


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("affine", [False, True])
def test_output_equals_that_of_instance_norm(batch: int, affine: bool) -> None:
    x = torch.randn(batch, 4, 8, 9, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.InstanceNorm2d(4, affine=affine))
    expected = network(x)
    use_exact_norms(network)
    assert isinstance(network[0], ExactInstanceNorm)
    torch.testing.assert_close(network(x), expected)


def test_stored_statistics_are_used_in_training_and_stay_unchanged() -> None:
    norm = nn.InstanceNorm2d(2, track_running_stats=True)
    network = nn.Sequential(norm)
    use_exact_norms(network)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.fill_(3.0)
    norm.running_var.fill_(4.0)
    x = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.train()(x), (x - 3) / 2, rtol=1e-4, atol=1e-4)
    assert norm.running_mean.tolist() == [3.0, 3.0]
