from __future__ import annotations

import pytest
import torch

from engine.model.card import UPSAMPLINGS, Architecture
from engine.model.network import ResnetGenerator
from engine.model.upsampling import fold_upsampling, folded_for_inference


def generator(upsample: str) -> ResnetGenerator:
    torch.manual_seed(4)
    return ResnetGenerator(Architecture(blocks=1, ngf=4, upsample=upsample))  # type: ignore[arg-type]


def test_folded_layers_compute_the_same_with_the_same_gradients() -> None:
    plain, folded = generator("resize").double(), generator("resize").double()
    fold_upsampling(folded)
    image = torch.rand(2, 3, 24, 36, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(folded(image), plain(image))
    for network in (plain, folded):
        network(image).square().sum().backward()
    for a, b in zip(plain.parameters(), folded.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("upsample", ["resize", "transpose"])
def test_names_in_a_state_dict_stay(upsample: str) -> None:
    folded = generator(upsample)
    fold_upsampling(folded)
    assert list(folded.state_dict()) == list(generator(upsample).state_dict())


@pytest.mark.parametrize("upsample", UPSAMPLINGS)
def test_what_translates_computes_the_same_and_leaves_the_original_alone(upsample: str) -> None:
    plain = generator(upsample).double()
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    image = torch.rand(2, 3, 16, 20, dtype=torch.float64) * 2 - 1

    fixed = folded_for_inference(plain)

    torch.testing.assert_close(fixed(image), plain(image))
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
