"""Gradients of every network against float64 references; see tests/trainer/formulas.py."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.model.card import Architecture
from engine.system.compiler import find_compiler
from tests.trainer.formulas import output_by_formula
from trainer.compiler import set_compiler_flags
from trainer.config import NetworkConfig
from trainer.gradients import TOLERANCES, compare, relative_error, worst_error
from trainer.networks import Networks, build_networks

NEEDS_COMPILER = [
    pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler"),
    pytest.mark.filterwarnings("ignore"),  # deprecations inside torch's compiler
]
LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
CONFIGS = {
    "published": NetworkConfig(architecture=Architecture(blocks=1, ngf=4), ndf=4),
    "resize": NetworkConfig(
        architecture=Architecture(blocks=1, ngf=4, upsample="resize", learn_residual=True),
        ndf=4,
        discriminator_norm="none",
    ),
}


def networks_of(config: NetworkConfig, layout: str) -> Networks:
    networks = build_networks(config, seed=1)
    for _, network in networks.named():
        for weight in network.parameters():
            if not weight.any():  # biases, and the last convolution of a residual generator
                nn.init.normal_(weight, 0, 0.02, generator=torch.Generator().manual_seed(3))
        network.to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
    return networks


def images_of(batch: int, layout: str, seed: int = 0) -> Tensor:
    images = torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return images.contiguous(memory_format=LAYOUTS[layout])


def gradients_by_formula(network: nn.Module, images: Tensor, loss_weights: Tensor) -> dict[str, Tensor]:
    weights = {name: weight.detach().double().requires_grad_() for name, weight in network.named_parameters()}
    output = output_by_formula(network, weights, images.double())
    assert output.shape == loss_weights.shape
    (output * loss_weights.double()).mean().backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad for name, weight in weights.items() if weight.grad is not None}


EAGER = [(config, False, batch, layout) for config in CONFIGS for batch in (1, 4) for layout in LAYOUTS]
COMPILED = [("published", True, batch, layout) for batch in (1, 4) for layout in LAYOUTS]
COMPILED += [("resize", True, 1, "channels-last")]  # each compilation takes seconds


@pytest.mark.parametrize(
    ("config", "compiled", "batch", "layout"),
    [*EAGER, *(pytest.param(*case, marks=NEEDS_COMPILER) for case in COMPILED)],
)
def test_every_weight_gets_the_gradient_of_the_formulas(config: str, compiled: bool, batch: int, layout: str) -> None:
    networks = networks_of(CONFIGS[config], layout)
    images = images_of(batch, layout)
    for name in ("a_to_b", "real_a"):
        network = dict(networks.named())[name]
        if compiled:
            set_compiler_flags()
            network.compile(dynamic=False)
        output = network(images)
        loss_weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
        expected = gradients_by_formula(network, images, loss_weights)
        layout_weights = loss_weights.contiguous(memory_format=LAYOUTS[layout])
        (output * layout_weights).mean().backward()
        for tensor, weight in network.named_parameters():
            if weight.ndim > 1:  # before a normalisation, a bias has a gradient of zero but for rounding
                assert weight.grad is not None
                assert relative_error(weight.grad, expected[tensor]) < 1e-4, tensor


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("config", CONFIGS)
def test_the_check_of_a_run_accepts_right_gradients(config: str, batch: int, layout: str) -> None:
    networks = networks_of(CONFIGS[config], layout)
    a, b = images_of(batch, layout), images_of(batch, layout, seed=1)
    for bf16 in (False, True):
        error = worst_error(networks, a, b, bf16=bf16, identity=True)
        assert error.relative < TOLERANCES["bf16" if bf16 else "fp32"], error


class NormWithTheFault(nn.InstanceNorm2d):
    """InstanceNorm with the kernel of torch, which is wrong for one image."""


def test_the_check_finds_the_fault_of_torch() -> None:
    networks = networks_of(CONFIGS["published"], "channels-last")
    for module in networks.a_to_b.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.__class__ = NormWithTheFault
    image = images_of(1, "channels-last")
    error = worst_error(networks, image, images_of(1, "channels-last", seed=1), bf16=False, identity=False)
    assert error.network == "a_to_b"
    assert error.relative > 1


def test_the_check_leaves_weights_gradients_and_global_random_state_alone() -> None:
    config = CONFIGS["resize"]
    networks = build_networks(config, seed=1)  # with a last convolution of zeros
    before = [weight.clone() for weight in (*networks.generators(), *networks.discriminators())]
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    worst_error(networks, images_of(1, "NCHW"), images_of(1, "NCHW", seed=1), bf16=True, identity=False)
    assert torch.equal(torch.rand(1), expected)
    for old, weight in zip(before, (*networks.generators(), *networks.discriminators()), strict=True):
        assert torch.equal(old, weight)
        assert weight.grad is None
        assert weight.requires_grad


def test_gradients_that_are_not_finite_are_infinitely_wrong() -> None:
    network = networks_of(CONFIGS["published"], "NCHW").real_a
    first = next(iter(network.parameters()))
    first.register_hook(lambda gradient: gradient * float("nan"))  # type: ignore[no-untyped-call]
    errors = compare("real_a", network, images_of(1, "NCHW"), bf16=False)
    assert max(error.relative for error in errors) == float("inf")
