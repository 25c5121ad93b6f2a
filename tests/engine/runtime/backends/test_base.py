"""A module from uint8 pixels to uint8 pixels."""

from __future__ import annotations

import copy

import pytest
import torch

from engine.model.pixels import to_network, to_pixels
from engine.model.weights import Generator
from engine.runtime.backends.base import DTYPES, PixelGenerator


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_equals_the_module_with_both_conversions(precision: str, generator: Generator) -> None:
    wrapped = PixelGenerator(copy.deepcopy(generator.module), DTYPES[precision])
    x = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = to_pixels(wrapped.generator(to_network(x, DTYPES[precision])))
        assert torch.equal(wrapped(x), expected)
    assert {p.dtype for p in wrapped.parameters()} == {DTYPES[precision]}
    assert wrapped.generator.model[1].weight.is_contiguous(memory_format=torch.channels_last)
