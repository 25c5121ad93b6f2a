"""Write a generator as a PyTorch checkpoint in the layout of the project that it can be loaded by."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from engine.model.card import Architecture
from engine.model.network import GeneratorNetwork
from engine.system.files import write_atomically

_GAN = ("instance", "reflect", 3, 3)
"""Norm, padding and channels of PyTorch-GAN's generator."""

REFERENCE = "pytorch-CycleGAN-and-pix2pix"


def save_checkpoint(path: Path, module: GeneratorNetwork) -> str:
    """Write `module` in float32 to `path` atomically; return where the file can be loaded, in a sentence."""
    content = io.BytesIO()  # PyTorch reports a full disk as an error of its own
    torch.save(state_for(module), content)
    write_atomically(path, content.getvalue())
    return loads_in(module.arch)


def state_for(module: GeneratorNetwork) -> OrderedDict[str, Tensor]:
    """Return the state dict under the names of the project that has the network."""
    gan = is_pytorch_gan(module.arch)
    return OrderedDict(
        (key.replace(".conv_block.", ".block.") if gan else key, value.detach().cpu().clone().contiguous())
        for key, value in module.float().state_dict().items()
    )


def is_pytorch_gan(arch: Architecture) -> bool:
    """Return whether the generator is one of PyTorch-GAN, which calls the inside of residual blocks `block`."""
    return arch.upsample == "nearest"


def loads_in(arch: Architecture) -> str:
    """Return which project's class loads the checkpoint of a network, or that none does."""
    missing = [
        name
        for name, is_there in {
            "resize up-sampling": arch.upsample == "resize",
            "the learned residual": arch.learn_residual,
            "stored statistics of instance norms": arch.track_running_stats,
            "scale and shift of instance norms": arch.affine,
            "biases beside its norm": arch.bias and arch.norm != "instance",
            "no biases beside instance norm": not arch.bias and arch.norm == "instance",
            "nearest up-sampling beside this norm, padding or number of channels": is_pytorch_gan(arch)
            and (arch.norm, arch.padding, arch.channels_in, arch.channels_out) != _GAN,
            "low-pass filters on one side only": (arch.upsample == "blur") is not (arch.downsample == "blur"),
        }.items()
        if is_there
    ]
    if missing:
        return f"No known project builds this network as it is ({', '.join(missing)}); see docs/generators.md."
    if is_pytorch_gan(arch):
        return f"Loads in PyTorch-GAN: GeneratorResNet((3, 256, 256), {arch.blocks}) at {arch.ngf} channels."
    options = f"--ngf {arch.ngf} --norm {arch.norm} --no_dropout"
    if (arch.channels_in, arch.channels_out) != (3, 3):
        options += f" --input_nc {arch.channels_in} --output_nc {arch.channels_out}"
    if arch.network == "unet":
        named = {7: "--netG unet_128", 8: "--netG unet_256"}.get(arch.levels)
        options += f" {named}" if named else f" and UnetGenerator with num_downs={arch.levels}"
    else:
        named = f"--netG resnet_{arch.blocks}blocks" if arch.blocks in (6, 9) else None
        options += f" {named}" if named else f" and ResnetGenerator with n_blocks={arch.blocks}"
    if arch.upsample == "blur":
        return f"Loads in CUT: {options}."
    padding = "" if arch.padding == "reflect" else f", and padding_type={arch.padding!r} in define_G"
    return f"Loads in {REFERENCE}: {options}{padding}."
