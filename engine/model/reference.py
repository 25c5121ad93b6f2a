"""Read and write generator checkpoints of the reference implementation (`latest_net_G_A.pth`) and its relatives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.errors import SetupError
from engine.model.assumptions import NotStatable, Reading, Stated, norm_words, readings
from engine.model.card import Card
from engine.model.checkpoint import nested_state_dicts, read_checkpoint_file, split
from engine.model.layers import BlurDown, BlurUp
from engine.model.network import GeneratorNetwork, build_generator
from engine.model.recognise import Layer, Seen, describe_unknown, params_of, recognise
from engine.model.reparametrised import fold
from engine.model.weights import first_mismatch


@dataclass(frozen=True, kw_only=True)
class GeneratorCheckpoint:
    """A generator in a checkpoint file: its tensors, and the ways to read them."""

    path: Path
    name: str
    """Where the generator is in the file, such as `state_dict.genX`; empty if the file holds nothing else."""
    tensors: Mapping[str, Tensor]
    seen: Seen
    readings: Sequence[Reading]
    """The likeliest first; only one if nothing had to be assumed."""
    remarks: Sequence[str] = ()
    """What was done to the tensors, such as `spectral norm folded into the weights`."""
    alternatives: Sequence[Reading] = ()
    """All ways to read it, whatever was stated."""
    card: Card | None = None
    """Card of a Solstice model file."""

    def build(self, reading: Reading | None = None) -> GeneratorNetwork:
        """Return the generator of a reading, the likeliest by default, in eval mode and its checkpoint's precision.

        Raises `SetupError` if a tensor is missing or has another shape, or a value is infinite or no number.
        """
        arch = (reading or self.readings[0]).architecture
        with torch.device("meta"):  # shapes without memory
            module = build_generator(arch)
        tensors = self._named_as_in(module)
        mismatch = first_mismatch(module, {key: value.shape for key, value in tensors.items()})
        if mismatch is not None:
            raise SetupError(f"{self.path} holds {self.seen.what}, but {mismatch}.")
        for key, value in module.state_dict().items():
            if value.is_floating_point() is not tensors[key].is_floating_point():
                raise SetupError(f"{self.path}: key {key} has type {tensors[key].dtype}, which does not fit.")
            if not torch.isfinite(tensors[key].float()).all():  # not defined for types of 8 bits
                raise SetupError(f"{self.path}: key {key} has values that are infinite or no number.")
        module.to_empty(device="cpu").load_state_dict(tensors)
        return module.eval()

    def _named_as_in(self, module: nn.Module) -> dict[str, Tensor]:
        """Return the tensors by the keys of `module`: convolutions and norms have the same order in both."""
        named: dict[str, Tensor] = {}
        own = layers_of(module)
        for theirs, (convolution, norm) in zip(self.seen.layers, own, strict=True):
            params = params_of(self.tensors, theirs.convolution)
            named |= {f"{convolution}.{name}": value for name, value in params.items()}
            if norm is not None:
                named |= _norm_tensors(module.get_submodule(norm), norm, params_of(self.tensors, theirs.norm))
        for path, layer in module.named_modules():
            if isinstance(layer, BlurDown | BlurUp):
                named[f"{path}.filt"] = type(layer)(layer.filt.shape[0]).filt
        return named


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network in a checkpoint file."""

    name: str
    tensors: Mapping[str, Tensor]
    seen: Seen | None
    """None if it is not recognised."""
    folded: Sequence[str]
    """Reparametrisations that were folded into the weights."""
    left_out: Sequence[str] = ()
    """Keys of tensors that cannot be used."""

    @property
    def is_generator(self) -> bool:
        """Whether it is recognised as one, even if Solstice does not build it."""
        return self.seen is not None and self.seen.is_generator

    def __str__(self) -> str:
        """Return what it is, with an article."""
        if self.seen is None:
            return describe_unknown(self.tensors)
        if self.is_generator and not self.seen.problem:
            with suppress(ValueError):
                return f"{self.seen.what} {norm_words(self.seen, self.tensors)}"
        return self.seen.what


def read_checkpoint(path: Path, *, generator: str | None = None, stated: Stated | None = None) -> GeneratorCheckpoint:
    """Read the generator in the checkpoint `path`, telling its architecture from keys and shapes.

    `generator` names one of several in the file: `A2B`, `B2A`, or a name in it. Only tensors are read, never code.
    Raises `SetupError` if there is no generator that Solstice builds, in words that describe what there is.
    """
    content, card = read_checkpoint_file(path)
    if card is not None:
        return _with_card(path, content, card, generator, stated or Stated())
    chosen, remarks = choose(path, find_networks(content), generator)
    return _checkpoint(path, chosen, stated or Stated(), remarks)


def find_networks(content: Mapping[Any, Any]) -> list[Network]:
    """Return all networks in a checkpoint's content, in its order."""
    return [
        Network(name=part.name, tensors=tensors, seen=recognise(tensors), folded=names, left_out=part.left_out)
        for found in nested_state_dicts(content)
        for part in split(found, lambda tensors: recognise(fold(tensors)[0]) is not None)
        for tensors, names in [fold(part.tensors)]
    ]


def choose(path: Path, networks: Sequence[Network], wanted: str | None) -> tuple[Network, list[str]]:
    """Return the generator that is wanted, or the only one, and remarks; raises `SetupError` if it is not clear."""
    generators = [network for network in networks if network.is_generator]
    if wanted is not None:
        named = [network for network in networks if wanted in (network.name, network.name.rpartition(".")[2])]
        named = named or [network for network in generators if _direction(network.name) == wanted.upper()]
        if len(named) == 1:
            return named[0], []
        which = "is not in it" if not named else "is not clear"
        raise SetupError(f"{path}: --generator {wanted} {which}; the file holds {_listing(networks)}.")
    names = {network.name for network in networks}
    averaged = {network.name for network in generators if _without_ema(network.name) in names - {network.name}}
    latest = [network for network in generators if network.name not in {_without_ema(name) for name in averaged}]
    if len(latest) == 1:
        remarks = [f"{latest[0].name}, the averaged weights, taken and not {_without_ema(latest[0].name)}"]
        return latest[0], remarks if averaged else []
    if len(networks) == 1:
        return networks[0], []
    if not networks:
        raise SetupError(f"{path} holds no network: it has no dictionary of tensors by name.")
    if generators:
        raise SetupError(f"{path} holds several generators, choose one with --generator: {_listing(networks)}.")
    raise SetupError(f"{path} holds no generator that is recognised, only {_listing(networks)}.")


_DIRECTION = re.compile(r"(?:net|gen|generator|g)?_?(?:(?P<forth>a2b|ab|atob|a_to_b|a)|(?P<back>b2a|ba|btoa|b_to_a|b))")


def _direction(name: str) -> str | None:
    """Return A2B or B2A for a name such as `netG_A`, `G_AB` or `genB2A`; None if it does not tell."""
    match = _DIRECTION.fullmatch(name.rpartition(".")[2].lower().replace("netg", "g"))
    return None if match is None else "A2B" if match["forth"] else "B2A"


def _without_ema(name: str) -> str:
    return re.sub(r"_?ema(?=$|\.)", "", name)


def _listing(networks: Sequence[Network], most: int = 12) -> str:
    words = [f"{network.name or 'itself'} ({network})" for network in networks[:most]]
    return ", ".join(words) + (f" and {len(networks) - most} more" if len(networks) > most else "")


def _checkpoint(path: Path, network: Network, stated: Stated, remarks: Sequence[str]) -> GeneratorCheckpoint:
    where = f" in {network.name}" if network.name else ""
    seen, tensors = network.seen, network.tensors
    if network.left_out and (seen is None or seen.problem):
        raise SetupError(
            f"{path} holds{where} tensors that are quantised, sparse or without values ({len(network.left_out)}, such "
            f"as {network.left_out[0]:.60}); save the weights as ordinary floating-point tensors."
        )
    if seen is None:
        raise SetupError(f"{path} holds{where} {network}; Solstice imports ResNet and U-Net generators.")
    if seen.problem:
        raise SetupError(f"{path} holds{where} {seen.what}, which is not imported: {seen.problem}.")
    for key, taps in seen.blurs:
        expected = (BlurDown(1) if taps == 3 else BlurUp(1)).filt
        if not torch.allclose(tensors[key].float(), expected.expand_as(tensors[key]), atol=1e-3):
            raise SetupError(f"{path} holds{where} {seen.what}, but its low-pass filter {key} is not that of CUT.")
    try:
        found = readings(seen, tensors, stated)
    except NotStatable as error:
        raise SetupError(f"{path} holds{where} {network}: {error}.") from error
    except ValueError as error:
        raise SetupError(f"{path} holds{where} {seen.what}, which is not imported: {error}.") from error
    remarks = [*remarks, *(f"{name} folded into the weights" for name in network.folded)]
    return GeneratorCheckpoint(
        path=path,
        name=network.name,
        tensors=tensors,
        seen=seen,
        readings=found,
        remarks=remarks,
        alternatives=readings(seen, tensors, Stated()),
    )


def _with_card(
    path: Path, tensors: Mapping[str, Tensor], card: Card, generator: str | None, stated: Stated
) -> GeneratorCheckpoint:
    """Return the generator of a Solstice model file, whose card leaves nothing to assume."""
    if generator is not None or stated != Stated():
        raise SetupError(
            f"{path} is a Solstice model, whose card describes it; leave out --generator, --norm and the like."
        )
    with torch.device("meta"):
        module = build_generator(card.architecture)
    mismatch = first_mismatch(module, {key: value.shape for key, value in tensors.items()})
    if mismatch is not None:
        raise SetupError(f"{path}: {mismatch}.")
    layers = [Layer(convolution, norm) for convolution, norm in layers_of(module)]
    seen = Seen(what="a Solstice model", is_generator=True, layers=layers)
    reading = Reading(architecture=card.architecture, options="")
    return GeneratorCheckpoint(path=path, name="", tensors=tensors, seen=seen, readings=[reading], card=card)


def layers_of(module: nn.Module) -> list[tuple[str, str | None]]:
    """Return the paths of a generator's convolutions, each with that of the norm after it, in order."""
    layers: list[tuple[str, str | None]] = []
    for path, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layers.append((path, None))
        elif isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d):
            layers[-1] = (layers[-1][0], path)
    return layers


def _norm_tensors(norm: nn.Module, path: str, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a norm by key: those it uses, with the neutral value of those the checkpoint has not."""
    tensors = {}
    for name, value in norm.state_dict().items():
        neutral = torch.zeros if name in ("bias", "running_mean", "num_batches_tracked") else torch.ones
        tensors[f"{path}.{name}"] = params[name] if name in params else neutral(value.shape, dtype=value.dtype)
    return tensors
