"""Fold reparametrised weights; tests/engine/model/kinds.py covers whole networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.model.reparametrised import fold

NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "spectral norm": nn.utils.parametrizations.spectral_norm,
    "weight norm": nn.utils.parametrizations.weight_norm,
}


def stored(norm: str) -> tuple[dict[str, Tensor], Tensor]:
    """Return the state dict of a normalised layer and its weight."""
    layer = nn.Conv2d(3, 5, 3)
    NORMS[norm](layer)
    layer.eval()
    return {f"layer.{name}": value for name, value in layer.state_dict().items()}, layer.weight.detach()


@pytest.mark.parametrize("norm", ["spectral norm", "weight norm"])
def test_a_folded_layer_has_one_weight_and_is_named(norm: str) -> None:
    tensors, weight = stored(norm)
    folded, names = fold(tensors)
    assert folded.keys() == {"layer.weight", "layer.bias"}
    torch.testing.assert_close(folded["layer.weight"], weight)
    assert names == [norm]


@pytest.mark.parametrize(
    ("norm", "part", "shape"),
    [
        ("spectral norm", "parametrizations.weight.0._u", (4,)),
        ("weight norm", "parametrizations.weight.original0", (5,)),
    ],
)
def test_parts_that_do_not_fit_together_are_neither_folded_nor_named(
    norm: str, part: str, shape: tuple[int, ...]
) -> None:
    tensors, _ = stored(norm)
    tensors[f"layer.{part}"] = torch.ones(shape)
    folded, names = fold(tensors)
    assert folded.keys() == tensors.keys()
    assert names == []
