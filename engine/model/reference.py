"""Read generator checkpoints of the reference implementation (`latest_net_G_A.pth`) and its derivatives."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import SetupError
from engine.model.card import Architecture
from engine.model.network import ResnetGenerator
from engine.model.weights import first_mismatch


def read_checkpoint(path: Path, *, learn_residual: bool = False) -> ResnetGenerator:
    """Load the generator in the checkpoint `path`, inferring its architecture from keys and shapes.

    A checkpoint does not record whether the network adds its output to its input; pass `learn_residual` if it does.

    Only tensors are read, never code (`weights_only=True`). Raises `SetupError`, naming the first key that does not
    fit, if the checkpoint is not a ResNet generator with instance normalisation.
    """
    tensors = _canonical(_read_tensors(path))
    try:
        arch = replace(infer_architecture(tensors), learn_residual=learn_residual)
        with torch.device("meta"):  # shapes without memory
            expected = ResnetGenerator(arch)
    except ValueError as error:
        raise SetupError(f"{path} is not a ResNet generator: {error}.") from error
    mismatch = first_mismatch(expected, {key: value.shape for key, value in tensors.items()})
    if mismatch is not None:
        raise SetupError(f"{path} is not a ResNet generator as in the CycleGAN paper: {mismatch}.")
    module = ResnetGenerator(arch)
    module.load_state_dict(tensors)
    return module.eval()


def infer_architecture(tensors: dict[str, Tensor]) -> Architecture:
    """Infer blocks, width and normalisation from a state dict; raises `ValueError` if they cannot be inferred."""
    first = tensors.get("model.1.weight")
    if first is None or first.ndim != 4 or tuple(first.shape[1:]) != (3, 7, 7):
        raise ValueError("key model.1.weight should be a 7x7 convolution of 3 channels")
    if "model.1.bias" not in tensors:
        raise ValueError("key model.1.bias is missing, as in networks with batch normalisation, which are not read")
    blocks = {match[1] for key in tensors if (match := re.match(r"model\.(\d+)\.conv_block\.", key))}
    if not blocks:
        raise ValueError("no key has the form model.N.conv_block")
    # After the residual blocks: two transposed convolutions with norm and ReLU, or the resize layers.
    up = 10 + len(blocks)
    return Architecture(
        blocks=len(blocks),
        ngf=int(first.shape[0]),
        affine="model.2.weight" in tensors,
        track_running_stats="model.2.num_batches_tracked" in tensors,
        upsample="resize" if f"model.{up}.2.weight" in tensors else "transpose",
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise SetupError(f"There is no checkpoint {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds on a file that is not a checkpoint
        raise SetupError(f"{path} cannot be read as a checkpoint of tensors ({type(error).__name__}).") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise SetupError(f"{path} holds no dictionary of tensors.")
    unexpected = next((k for k, v in content.items() if not (isinstance(k, str) and isinstance(v, Tensor))), None)
    if unexpected is not None:
        raise SetupError(f"{path}: key {unexpected} is not the name of a tensor.")
    return content


def _canonical(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename keys to this package's names and drop tensors that do not affect the network.

    Removes a DataParallel prefix, renames `block` to `conv_block`, and drops the running statistics that PyTorch before
    0.4 stored for InstanceNorm without using them: those come without `num_batches_tracked`; the reference drops them
    as well.
    """
    named = {re.sub(r"^module\.", "", key).replace(".block.", ".conv_block."): value for key, value in tensors.items()}
    if "model.2.num_batches_tracked" in named:
        return named
    return {key: value for key, value in named.items() if not key.endswith((".running_mean", ".running_var"))}
