"""Comparison of a network's gradients with those of a plain reference, before a run trusts them.

Kernels have been found that return finite, plausible and wrong gradients (see `trainer.norm` and `trainer.compiler`).
Losses do not show this for hours; a comparison takes seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.networks import INITIAL_STD, Networks

TOLERANCES = {"bf16": 0.5, "fp32": 0.02}
"""Largest relative error of a right gradient. In bf16, rounding alone reaches 0.24 at nine residual blocks; wrong
kernels were seen at 0.53, 0.55, 1.4 and NaN."""


class FormulaNorm(nn.Module):
    """Instance normalisation written as its formula: (x - mean) / sqrt(variance + eps), then scale and shift.

    Statistics are each image's own over H and W, or the stored ones where `layer` has them. Only elementary operators
    are used, so that the gradient comes from the chain rule and from no fused kernel.
    """

    def __init__(self, layer: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.eps, self.weight, self.bias = layer.eps, layer.weight, layer.bias
        self.mean = layer.running_mean
        self.variance = layer.running_var

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, H, W]; returns the same shape."""
        if self.mean is None or self.variance is None:
            mean = x.mean((2, 3), keepdim=True)
            variance = (x - mean).square().mean((2, 3), keepdim=True)
        else:
            mean, variance = self.mean[:, None, None], self.variance[:, None, None]
        y = (x - mean) * (variance + self.eps).rsqrt()
        return y if self.weight is None else y * self.weight[:, None, None] + self.bias[:, None, None]


@dataclass(frozen=True)
class GradientError:
    """The worst gradient of a comparison."""

    relative: float
    """Norm of the difference over the norm of the reference; infinite for NaN and infinities."""
    network: str
    """Name of the network as in `Networks`."""
    tensor: str
    """Name of the parameter, or `input`."""

    def __str__(self) -> str:
        return f"relative error {self.relative:.2g} in {self.tensor} of {self.network}"


def worst_error(networks: Networks, a: Tensor, b: Tensor, *, bf16: bool, identity: bool) -> GradientError:
    """Compare the gradients of all four networks with the reference on a batch of each domain.

    `a` and `b` are [N, 3, H, W] in [-1, 1]. Networks are called as a training step calls them: same batch sizes,
    layouts, dtypes and tensors that require gradients, so that compiled networks are checked in the very kernels that
    training runs. Weights stay as they are; gradients are cleared.
    """
    errors = []
    for there, back, domain, images, others in (
        ("a_to_b", "b_to_a", "real_b", a, b),
        ("b_to_a", "a_to_b", "real_a", b, a),
    ):
        named = dict(networks.named())
        first = torch.cat([images, others]) if identity else images
        errors += compare(there, named[there], first, bf16=bf16)
        with torch.no_grad(), _autocast(images, bf16):
            made = named[there](images)
        errors += compare(back, named[back], made.detach().requires_grad_(), bf16=bf16)
        errors += compare(domain, named[domain], made.detach().requires_grad_(), bf16=bf16, learns=False)
        errors += compare(domain, named[domain], torch.cat([others, made.detach().to(others.dtype)]), bf16=bf16)
    return max(errors, key=lambda error: error.relative)


def compare(name: str, network: nn.Module, images: Tensor, *, bf16: bool, learns: bool = True) -> list[GradientError]:
    """Return the error of each convolution weight's gradient, and of the input's where `images` requires it.

    The loss is a fixed random weighting of the output. The reference is a float32 copy in NCHW layout with
    `FormulaNorm`. With `learns` false, the parameters are constants, as those of a discriminator are while the
    generators learn. Biases are left out: before a normalisation their gradient is zero but for rounding.
    """
    with _no_zero_weights(network):
        reference = reference_copy(network)
        expected = _gradients(reference, images.detach().float().contiguous(), images.requires_grad, False, learns)
        actual = _gradients(network, images.detach(), images.requires_grad, bf16, learns)
    return [
        GradientError(relative_error(actual[tensor], gradient), name, tensor)
        for tensor, gradient in expected.items()
        if tensor == "input" or gradient.ndim > 1
    ]


def reference_copy(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Copy `network` uncompiled, in NCHW layout and `dtype`, with its normalisations written as formulas."""
    reference: nn.Module = copy.deepcopy(network).to(dtype=dtype, memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    reference._compiled_call_impl = None
    for module in list(reference.modules()):
        for child_name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm2d):
                setattr(module, child_name, FormulaNorm(child))
    return reference


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the norm of `actual - expected` over that of `expected`; infinite when `actual` is not finite."""
    difference = (actual.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30)
    return float(difference) if bool(torch.isfinite(difference)) else float("inf")


def _gradients(network: nn.Module, images: Tensor, wants_input: bool, bf16: bool, learns: bool) -> dict[str, Tensor]:
    """Return the gradients of every parameter, and of `images` where wanted, by name."""
    network.requires_grad_(learns).zero_grad(set_to_none=True)
    images = images.requires_grad_(wants_input)
    with _autocast(images, bf16):
        output = network(images)
    random = torch.Generator().manual_seed(0)
    weights = torch.randn(output.shape, generator=random).to(output.device)
    (output.float() * weights).mean().backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}
    if images.grad is not None:
        gradients["input"] = images.grad
    network.requires_grad_(True).zero_grad(set_to_none=True)
    return gradients


@contextmanager
def _no_zero_weights(network: nn.Module) -> Iterator[None]:
    """Fill weights that are all zero inside the `with` block: they would hide every gradient before them."""
    zero = [weight for weight in network.parameters() if weight.ndim > 1 and not weight.any()]
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in zero:
            weight.copy_(torch.randn(weight.shape, generator=random) * INITIAL_STD)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight in zero:
                weight.zero_()


def _autocast(images: Tensor, bf16: bool) -> torch.autocast:
    return torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16)
