"""Weights that a checkpoint stores in parts: spectral normalisation and weight normalisation, folded into one tensor.

spectral   Miyato, Kataoka, Koyama, Yoshida: "Spectral Normalization for Generative Adversarial Networks", ICLR 2018
weight     Salimans, Kingma: "Weight Normalization", NeurIPS 2016
"""

from __future__ import annotations

import torch
from torch import Tensor

_OLD_SPECTRAL = {"weight_orig": "original", "weight_u": "u", "weight_v": "v"}
_NEW_SPECTRAL = {
    "parametrizations.weight.original": "original",
    "parametrizations.weight.0._u": "u",
    "parametrizations.weight.0._v": "v",
}
_OLD_WEIGHT = {"weight_g": "norm", "weight_v": "direction"}
_NEW_WEIGHT = {"parametrizations.weight.original0": "norm", "parametrizations.weight.original1": "direction"}


def fold(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors with one `weight` for each layer, and the names of the reparametrisations that were folded.

    Layers whose parts do not fit together are left as they are.
    """
    layers: dict[str, set[str]] = {}
    for key in tensors:
        for part in (*_OLD_SPECTRAL, *_NEW_SPECTRAL, *_OLD_WEIGHT, *_NEW_WEIGHT):
            if key.endswith(f".{part}"):
                layers.setdefault(key.removesuffix(part), set()).add(part)
    folded = dict(tensors)
    names: set[str] = set()
    for layer, parts in layers.items():
        weight, name = None, "spectral norm"
        for kinds, found, compute in (
            (_OLD_SPECTRAL, "spectral norm", _spectral),
            (_NEW_SPECTRAL, "spectral norm", _spectral),
            (_OLD_WEIGHT, "weight norm", _weight),
            (_NEW_WEIGHT, "weight norm", _weight),
        ):
            if parts == set(kinds):
                weight = compute(**{argument: tensors[layer + part] for part, argument in kinds.items()})
                name = found
                break
        else:
            # Before PyTorch 1.1 there was no `weight_v`, but the normalised weight itself was stored.
            if f"{layer}weight" in tensors and parts == {"weight_orig", "weight_u"}:
                weight = tensors[f"{layer}weight"]
        if weight is not None:
            names.add(name)
            for part in parts:
                del folded[layer + part]
            folded[f"{layer}weight"] = weight
    return folded, sorted(names)


def _spectral(original: Tensor, u: Tensor, v: Tensor) -> Tensor | None:
    """Divide a weight by its largest singular value, as PyTorch does in evaluation: with the stored vectors, u' W v.

    The output channels of W are the first dimension of a convolution's weight and the second of a transposed one's; the
    lengths of the vectors tell which. For as many inputs as outputs, the vectors themselves do: after the last step of
    the power iteration, W v is a multiple of u.
    """
    weight = original.double()
    choices: list[tuple[float, Tensor]] = []
    for dim in (0, 1):
        if dim < weight.ndim and len(u) == weight.shape[dim] and len(v) * len(u) == weight.numel():
            product = weight.transpose(0, dim).flatten(1) @ v.double()
            sigma = u.double() @ product
            choices.append((float((product - sigma * u.double()).norm()), sigma))
    if not choices:
        return None
    return (weight / min(choices, key=lambda choice: choice[0])[1]).to(original.dtype)


def _weight(norm: Tensor, direction: Tensor) -> Tensor | None:
    """Scale each slice of `direction` to the length in `norm`, whose dimensions of size 1 are those of a slice."""
    if norm.ndim != direction.ndim or 1 not in norm.shape:
        return None
    slices = [dim for dim, size in enumerate(norm.shape) if size == 1]
    lengths: Tensor = torch.linalg.vector_norm(direction.double(), dim=slices, keepdim=True)
    scaled: Tensor = direction.double() * (norm.double() / lengths)
    return scaled.to(direction.dtype)
