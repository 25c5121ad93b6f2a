from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.model.folding import fold_batch_norm
from tests.engine.model.variants import VARIANTS, randomised


@pytest.mark.parametrize("name", [name for name, arch in VARIANTS.items() if arch.norm == "batch"])
def test_without_its_batch_norm_a_network_computes_the_same(name: str) -> None:
    module = randomised(VARIANTS[name]).double()
    folded = fold_batch_norm(module)
    side = max(16, module.arch.stride)
    x = torch.rand(1, module.arch.channels_in, side, side, dtype=torch.float64) * 2 - 1
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules()), "the original stays as it was"
    torch.testing.assert_close(folded(x), module(x), rtol=0, atol=1e-12)


def test_other_networks_are_copied() -> None:
    module = randomised(VARIANTS["resnet"])
    folded = fold_batch_norm(module)
    assert folded is not module
    for a, b in zip(folded.state_dict().items(), module.state_dict().items(), strict=True):
        assert a[0] == b[0]
        assert torch.equal(a[1], b[1])
