"""Read checkpoint files, and find the networks in them whatever they are wrapped in.

    read_checkpoint_file(path)      a file as nested dictionaries of tensors; no code in it is run
    nested_state_dicts(content)     the dictionaries of tensors in it
    split(state_dict, ...)          the networks in one of those, with the wrappers' prefixes removed

A wrapper is a dictionary (`{"netG_A2B": ..., "optimizer": ...}`), a prefix of all keys of one network (`module.` of
DistributedDataParallel, `_orig_mod.` of `torch.compile`), or a prefix that tells several networks of one state dict
apart (`genX.` and `genY.` of a LightningModule). They occur in any order and more than once.
"""

from __future__ import annotations

import argparse
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import SetupError
from engine.model.card import CARD_KEY, Card
from engine.model.onnx_weights import SUFFIX as ONNX_SUFFIX
from engine.model.onnx_weights import read_named_weights
from engine.system.checksums import damaged_record

Tensors = dict[str, Tensor]

_MAX_DEPTH = 8
"""Wrappers around a network; more are not looked into."""

_MAGIC = {
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"version https://git-lfs": "a pointer of Git LFS instead of the file (fetch it with `git lfs pull`)",
    b"<!DOCTYPE": "a web page (download the file itself)",
    b"<!doctype": "a web page (download the file itself)",
    b"<html": "a web page (download the file itself)",
}
"""First bytes of files that are often passed by mistake."""


@dataclass(frozen=True)
class StateDict:
    """The tensors of one network."""

    name: str
    """Where it is in the file, such as `state_dict.genX`; empty if the file is nothing else."""
    tensors: Tensors
    left_out: tuple[str, ...] = ()
    """Keys of tensors that are quantised, sparse, or without values of their own."""


def read_checkpoint_file(path: Path) -> tuple[dict[Any, Any], Card | None]:
    """Return the content of a .pth, .pt, .ckpt, .safetensors or .onnx file, and the card of a Solstice model file.

    Only tensors and plain values are read, on the CPU. Raises `SetupError` for a file that is missing or damaged, of
    another kind, or needs code of the project that wrote it.
    """
    if not path.is_file():
        raise SetupError(f"There is no checkpoint {path}." if not path.exists() else f"{path} is not a regular file.")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}.") from error
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            raise SetupError(f"{path} is {kind}, not a PyTorch checkpoint.")
    if path.suffix == ONNX_SUFFIX:
        return dict(read_named_weights(path)), None
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    if not start.startswith(b"PK") and tarfile.is_tarfile(path):
        raise SetupError(
            f"{path} is a tar file; if an early PyTorch wrote it and you trust it, save it again: "
            "torch.save(torch.load(FILE, weights_only=False), NEW_FILE)."
        )
    if zipfile.is_zipfile(path) and _is_program(path):
        raise SetupError(
            f"{path} is a program (TorchScript or torch.export), which is code; save the weights in it alone: "
            "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)."
        )
    return _read_torch(path), None


def _is_program(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        names = [name.split("/", 1)[-1] for name in archive.namelist()]
    return any(name == "constants.pkl" or name.startswith(("code/", "models/", "data/aotinductor")) for name in names)


def _read_torch(path: Path) -> dict[Any, Any]:
    try:
        # Many scripts store their command line beside the weights; a Namespace is a plain object with attributes.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch 2.11 warns of sparse tensors, which are refused by name below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on a file that is not a checkpoint
        needed = re.search(r"GLOBAL (\S+) (?:was not an allowed|whose module)|unrecognized function (\S+)", str(error))
        if needed is not None:
            name = needed[1] or needed[2]
            raise SetupError(
                f"{path} holds an object of {name}, and reading it would run code; save the tensors alone, in the "
                "project that wrote it: torch.save(network.state_dict(), NEW_FILE)."
            ) from error
        raise SetupError(
            f"{path} cannot be read as a checkpoint of tensors ({type(error).__name__}): it is damaged, incomplete, or "
            "no PyTorch checkpoint."
        ) from error
    if not isinstance(content, dict) or not content:
        raise SetupError(f"{path} holds no dictionary of tensors but {_kind(content)}.")
    record = damaged_record(path)
    if record is not None:
        raise SetupError(f"{path} is damaged: the checksum of its {record} is wrong; copy or download it again.")
    return content


def _read_safetensors(path: Path) -> tuple[dict[Any, Any], Card | None]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(CARD_KEY)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        card = None if text is None else Card.from_json(text)
    except (SafetensorError, OSError) as error:
        raise SetupError(f"{path} is not a readable .safetensors file ({error}).") from error
    except ValueError as error:
        raise SetupError(f"{path}: {error}.") from error
    if not tensors:
        raise SetupError(f"{path} holds no tensors.")
    return tensors, card


def _kind(content: object) -> str:
    if isinstance(content, dict | list | tuple) and not content:
        return "nothing"
    return "a single tensor" if isinstance(content, Tensor) else f"a {type(content).__name__}"


def nested_state_dicts(content: Mapping[Any, Any], name: str = "", depth: int = 0) -> Iterator[StateDict]:
    """Yield each dictionary in a checkpoint's content that directly holds tensors by name, from the outside in."""
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and _is_weight(value)}
    left_out = tuple(str(key) for key, value in content.items() if isinstance(value, Tensor) and key not in tensors)
    if any("." in key or value.ndim > 1 for key, value in tensors.items()):
        yield StateDict(name, tensors, left_out)
    if depth < _MAX_DEPTH:
        for key, value in content.items():
            if isinstance(value, dict) and isinstance(key, str):  # keys of an optimiser's state are numbers
                yield from nested_state_dicts(value, f"{name}.{key}" if name else key, depth + 1)


def _is_weight(value: object) -> bool:
    """Return whether `value` is an ordinary tensor; one that repeats a few values to a huge shape is not."""
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized or value.is_meta:
        return False
    return value.untyped_storage().nbytes() >= value.numel() * value.element_size()


def split(found: StateDict, is_network: Callable[[Tensors], bool], depth: int = 0) -> list[StateDict]:
    """Return the networks in a state dict, with the prefixes of their keys removed.

    `is_network` tells whether tensors are one network under their names; prefixes are removed until it returns true. A
    state dict of which no part is accepted is returned whole.
    """
    tensors = {key: value for key, value in found.tensors.items() if key != "n_averaged"}  # of an AveragedModel
    if is_network(tensors):
        return [StateDict(found.name, tensors, found.left_out)]
    if depth == _MAX_DEPTH:
        return [found]
    groups: dict[str, Tensors] = {}
    for key, value in tensors.items():
        prefix, dot, rest = key.partition(".")
        if dot:
            groups.setdefault(prefix, {})[rest] = value
    parts = [
        part
        for prefix, group in groups.items()
        for part in split(StateDict(_joined(found.name, prefix), group, found.left_out), is_network, depth + 1)
        if is_network(part.tensors)
    ]
    return parts or [found]


def _joined(name: str, prefix: str) -> str:
    """Return the name of a part; wrappers that occur around any network do not become part of it."""
    if prefix in ("module", "_orig_mod"):
        return name
    return f"{name}.{prefix}" if name else prefix
