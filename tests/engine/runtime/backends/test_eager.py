"""The eager backend, which defines the reference result."""

from __future__ import annotations

import pytest
import torch

from engine.model.weights import Generator
from engine.runtime.backends.base import Backend, PixelGenerator
from engine.runtime.backends.eager import EagerBackend

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.needs_cuda)]


@pytest.mark.parametrize("device", DEVICES)
def test_it_equals_the_module(device: str, generator: Generator) -> None:
    """Up to the order of sums on a CPU; a GPU may round float32 convolutions to TF32, within two of 255 levels."""
    backend: Backend = EagerBackend(generator, "fp32", torch.device(device))
    x = torch.randint(0, 256, (3, 32, 48, 3), dtype=torch.uint8)
    result = backend(x)
    assert (result.shape, result.dtype, result.device.type) == (x.shape, torch.uint8, "cpu")
    with torch.no_grad():
        expected = torch.cat([PixelGenerator(generator.module, torch.float32)(one_HWC[None]) for one_HWC in x])
    assert (result.int() - expected.int()).abs().max() <= (1 if device == "cpu" else 2)


def test_the_original_generator_is_not_modified(generator: Generator) -> None:
    before = {key: value.clone() for key, value in generator.module.state_dict().items()}
    EagerBackend(generator, "bf16", torch.device("cpu"))(torch.zeros(1, 16, 16, 3, dtype=torch.uint8))
    for key, value in generator.module.state_dict().items():
        assert value.dtype == before[key].dtype
        assert torch.equal(value, before[key])
