"""Run the trunk in Triton's interpreter, on the CPU, and print its errors against float64 as JSON.

    TRITON_INTERPRET=1 python -m tests.engine.runtime.backends.trunk_interpreted

The interpreter must be switched on before Triton is imported, for the whole process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from engine.model.card import Architecture
from engine.model.network import ResnetBlock
from engine.runtime.backends import trunk


@dataclass(frozen=True)
class Case:
    """A trunk of random weights, and the shape of its input."""

    images: int
    rows: int
    columns: int
    ngf: int = 4
    blocks: int = 1
    affine: bool = False
    flat: bool = False
    """Whether all pixels of a channel are equal, so that its variance is zero."""


CASES = {
    "an image within one tile": Case(1, 5, 4),
    "several tiles an image": Case(2, 9, 7),
    "several products a tap, several columns of tiles, two blocks": Case(1, 4, 6, ngf=8, blocks=2),
    "affine norms": Case(2, 6, 6, affine=True),
    "flat images": Case(1, 8, 8, flat=True),
    "the smallest image": Case(1, 2, 2),
}


def error(case: Case) -> dict[str, float]:
    """Return the relative error against float64, and whether a batch equals its images translated alone."""
    arch = Architecture(ngf=case.ngf, blocks=case.blocks, affine=case.affine)
    torch.manual_seed(5)
    blocks = [ResnetBlock(4 * case.ngf, arch).eval() for _ in range(case.blocks)]
    for block in blocks:
        for layer in block.modules():
            if isinstance(layer, nn.InstanceNorm2d) and case.affine:
                nn.init.normal_(layer.weight, 1.0, 0.3)
                nn.init.normal_(layer.bias, 0.0, 0.3)
    x = torch.randn(case.images, 4 * case.ngf, case.rows, case.columns).half()
    if case.flat:
        x = x[:, :, :1, :1].expand_as(x)
    interpreted = trunk.TritonTrunk(blocks)
    made = interpreted(x)
    last_alone = made[-1:] if case.images == 1 else interpreted(x[-1:])
    expected = nn.Sequential(*blocks).double()(x.double())
    return {"relative": _relative(made, expected), "alone": _relative(last_alone, made[-1:])}


def _relative(made: Tensor, expected: Tensor) -> float:
    return float((made.double() - expected.double()).abs().max() / expected.double().std())


def main() -> None:
    """Print the errors of all cases."""
    trunk.TILING = replace(trunk.TILING, rows=16, columns=16, depth=16)
    trunk._STATISTICS_TILES = 4
    with torch.no_grad():
        print(json.dumps({name: error(case) for name, case in CASES.items()}))


if __name__ == "__main__":
    main()
