"""What keys and shapes do not tell about a generator: the architectures that they allow, the likeliest first.

Layers without parameters leave no trace: padding by reflection has the keys of padding by repetition, and an
InstanceNorm without scale and shift those of no norm at all. Such a network runs with any of them, and only one of them
is right.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from engine.model.card import PADDINGS, Architecture
from engine.model.recognise import Seen, params_of


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What a user states about a checkpoint's network; None is to be assumed."""

    norm: str | None = None
    """`instance`: the statistics of each image; `batch`: stored statistics; `none`."""
    padding: str | None = None
    """Padding in the residual blocks: `reflect`, `replicate` or `zero`."""
    learn_residual: bool | None = None
    """The network adds its output to its input."""


@dataclass(frozen=True)
class Assumption:
    """A property that was assumed, and the option that states another."""

    text: str
    option: str
    """Empty if there is none."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read a checkpoint."""

    architecture: Architecture
    options: str
    """The options of `solstice import` that state it."""
    assumptions: tuple[Assumption, ...] = ()
    """What is neither stated nor determined by the keys."""


@dataclass(frozen=True)
class _Norm:
    option: str
    fields: Mapping[str, Any]
    text: str


class NotStatable(ValueError):
    """Raised when an option contradicts the checkpoint."""


def readings(seen: Seen, tensors: Mapping[str, Tensor], stated: Stated) -> list[Reading]:
    """Return the ways to read a generator that agree with what is stated, the likeliest first.

    Raises `NotStatable` if none does, and `ValueError` for a network that `Architecture` does not describe.
    """
    norms = _norms(seen, tensors)
    chosen = [norm for norm in norms if stated.norm in (None, norm.option)]
    if not chosen:
        raise NotStatable(f"--norm {stated.norm} does not fit its tensors, which allow {_alternatives(norms)}")
    is_resnet = seen.fields["network"] == "resnet"
    if stated.padding is not None and not is_resnet:
        raise NotStatable("--padding does not apply to a U-Net, whose layers always pad with zeros")
    implied = seen.fields.get("padding")
    paddings = [stated.padding] if stated.padding else sorted(PADDINGS, key=lambda name: name != implied)
    residuals = [False, True] if stated.learn_residual is None else [stated.learn_residual]
    if seen.fields["channels_in"] != seen.fields["channels_out"]:
        residuals = residuals[:1]
    found = []
    for norm, padding, residual in itertools.product(chosen, paddings if is_resnet else [None], residuals):
        fields = {**seen.fields, **norm.fields, "learn_residual": residual}
        options = f"--norm {norm.option}"
        assumed = []
        if stated.norm is None and seen.has_norm_slots:
            assumed.append(Assumption(norm.text, "--norm" if len(norms) > 1 else ""))
        if padding is not None:
            fields["padding"] = padding
            options += f" --padding {padding}"
            if stated.padding is None:
                assumed.append(Assumption(f"{_PADDING_WORDS[padding]} in the residual blocks", "--padding"))
        if residual:
            options += " --learn-residual"
        if stated.learn_residual is None:
            words = "the output is added to the input" if residual else "the output is not added to the input"
            assumed.append(Assumption(words, "--learn-residual"))
        found.append(Reading(architecture=Architecture(**fields), options=options, assumptions=tuple(assumed)))
    return found


_PADDING_WORDS = {
    "reflect": "padding by reflection",
    "replicate": "padding by repeating the edge",
    "zero": "padding with zeros",
}


def _alternatives(norms: list[_Norm]) -> str:
    return " or ".join(f"--norm {norm.option}" for norm in norms)


def norm_words(seen: Seen, tensors: Mapping[str, Tensor]) -> str:
    """Return the norm of a recognised generator in words, as far as the keys tell it."""
    names = _norm_parameters(seen, tensors)
    if not seen.has_norm_slots:
        return "without norms"
    if "running_mean" in names:
        return "with batch norm" if not _has_bias(seen, tensors) else "with norms and stored statistics"
    return "with norms of scale and shift" if names else "with norms that have no parameters, if any"


def _norms(seen: Seen, tensors: Mapping[str, Tensor]) -> list[_Norm]:
    """Return the norms that the keys allow, the likeliest first; raises `ValueError` if layers differ."""
    bias = _has_bias(seen, tensors)
    names = _norm_parameters(seen, tensors)
    none = _Norm("none", {"norm": "none", "bias": bias}, "no norms")
    if not seen.has_norm_slots:
        return [none]
    if not names:
        instance = _Norm("instance", {"norm": "instance", "bias": bias}, "instance norms")
        # The reference leaves out the bias with every norm but instance norm, also where there is none.
        return [instance, none] if bias else [none, instance]
    affine = "weight" in names
    if affine is not ("bias" in names) or ("running_mean" in names) is not ("running_var" in names):
        raise ValueError("its norms have only part of their parameters")
    own = _Norm(
        "instance",
        {"norm": "instance", "affine": affine, "bias": bias},
        f"instance norms{' with scale and shift' if affine else ''}"
        + (", the statistics in the file left out" if "running_mean" in names else ""),
    )
    if "running_mean" not in names:
        return [own]  # a GroupNorm has the same keys, and other values
    stored = _Norm("batch", {"norm": "batch", "bias": bias}, "norms with the stored statistics, as after eval()")
    if not bias:
        return [stored, own]
    if "num_batches_tracked" not in names:
        # InstanceNorm before PyTorch 0.4 stored statistics without using them; the reference drops them as well.
        return [own, stored]
    tracked = {"norm": "instance", "affine": affine, "track_running_stats": True, "bias": True}
    return [_Norm("batch", tracked, stored.text), own]


def _has_bias(seen: Seen, tensors: Mapping[str, Tensor]) -> bool:
    found = {layer.convolution: "bias" in params_of(tensors, layer.convolution) for layer in seen.layers[:-1]}
    return _same(found, "its convolutions have a bias, but not all of them")


def _norm_parameters(seen: Seen, tensors: Mapping[str, Tensor]) -> frozenset[str]:
    found = {layer.norm: frozenset(params_of(tensors, layer.norm)) for layer in seen.layers if layer.norm is not None}
    return _same(found, "its norms have not all the same parameters") if found else frozenset()


V = TypeVar("V", bound=Hashable)


def _same(found: Mapping[str, V], otherwise: str) -> V:
    """Return the value that all layers share; raises `ValueError` that names a layer with another one."""
    (usual, _), *others = Counter(found.values()).most_common()
    if others:
        raise ValueError(f"{otherwise}, see {next(path for path, value in found.items() if value != usual)}")
    return usual
