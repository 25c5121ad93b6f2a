"""Every kind of generator in a few layers, and the same networks written out in plain PyTorch.

`reference(arch)` uses no code of the engine. It follows the published code of pytorch-CycleGAN-and-pix2pix (ResNet and
U-Net), CUT (low-pass filters) and PyTorch-GAN (nearest up-sampling), by functions on a state dict.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.card import Architecture
from engine.model.network import GeneratorNetwork, build_generator

VARIANTS = {
    "resnet": Architecture(blocks=2, ngf=4),
    "affine": Architecture(blocks=1, ngf=4, affine=True),
    "running statistics": Architecture(blocks=1, ngf=4, affine=True, track_running_stats=True),
    "resize, residual": Architecture(blocks=1, ngf=4, upsample="resize", learn_residual=True),
    "batch": Architecture(blocks=2, ngf=4, norm="batch", bias=False),
    "batch, zero": Architecture(blocks=2, ngf=4, norm="batch", bias=False, padding="zero"),
    "batch, bias, resize": Architecture(blocks=1, ngf=4, norm="batch", upsample="resize"),
    "no norm, replicate": Architecture(blocks=2, ngf=4, norm="none", bias=False, padding="replicate"),
    "nearest": Architecture(blocks=1, ngf=4, upsample="nearest"),
    "nearest, batch": Architecture(blocks=1, ngf=4, upsample="nearest", norm="batch", bias=False),
    "blur": Architecture(blocks=2, ngf=4, downsample="blur", upsample="blur"),
    "blur down, batch": Architecture(blocks=1, ngf=4, downsample="blur", norm="batch", bias=False),
    "blur up, no norm": Architecture(blocks=1, ngf=4, upsample="blur", norm="none", bias=False, padding="zero"),
    "gray": Architecture(blocks=1, ngf=4, channels_in=1, channels_out=1),
    "gray to colour": Architecture(blocks=1, ngf=4, channels_in=1, norm="batch", bias=False),
    "alpha": Architecture(blocks=1, ngf=4, channels_in=4, channels_out=4, learn_residual=True),
    "unet": Architecture(network="unet", levels=5, ngf=4),
    "unet, batch": Architecture(network="unet", levels=5, ngf=4, norm="batch", bias=False),
    "unet, no norm": Architecture(network="unet", levels=6, ngf=2, norm="none", bias=False, channels_in=1),
    "unet, gray, residual": Architecture(
        network="unet", levels=5, ngf=4, affine=True, channels_in=1, channels_out=1, learn_residual=True
    ),
}


def randomised(arch: Architecture) -> GeneratorNetwork:
    """Return a network whose weights, parameters of norms and stored statistics all have an effect."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        module = build_generator(arch).eval().requires_grad_(False)
        stored = arch.track_running_stats
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and (arch.norm != "instance" or stored):
                layer.weight.mul_(2.5)  # otherwise every output is nearly the same
            if isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d):
                for name, values in (*layer.named_parameters(), *layer.named_buffers()):
                    if values.is_floating_point():
                        values.uniform_(0.5, 1.5) if name in ("weight", "running_var") else values.uniform_(-0.5, 0.5)
    return module


def reference(arch: Architecture, state: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the network of `arch` with the tensors of `state` as a function of [N, C, H, W]."""
    written_out = _unet if arch.network == "unet" else _resnet

    def translate(x: Tensor) -> Tensor:
        made = written_out(arch, state, x)
        return x + made if arch.learn_residual else made

    return translate


def _norm(arch: Architecture, state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    if arch.norm == "none":
        return x
    if arch.norm == "batch" or arch.track_running_stats:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    else:
        mean, variance = x.mean((2, 3)), x.var((2, 3), unbiased=False)
    x = (x - mean.reshape(-1, x.shape[1], 1, 1)) / (variance.reshape(-1, x.shape[1], 1, 1) + 1e-5).sqrt()
    if f"{name}.weight" not in state:
        return x
    return x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]


def _resnet(arch: Architecture, state: dict[str, Tensor], x: Tensor) -> Tensor:
    def weights(name: str) -> tuple[Tensor, Tensor | None]:
        return state[f"{name}.weight"], state.get(f"{name}.bias")

    def norm_relu(number: int, x: Tensor) -> Tensor:
        return _norm(arch, state, f"model.{number}", x).relu()

    x = F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), *weights("model.1"))
    x = norm_relu(2, x)
    number = 4
    for _ in range(2):
        blur = arch.downsample == "blur"
        x = F.conv2d(x, *weights(f"model.{number}"), stride=1 if blur else 2, padding=1)
        x = norm_relu(number + 1, x)
        number += 3
        if blur:
            taps = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype) / 4
            x = _filtered(F.pad(x, (1, 1, 1, 1), mode="reflect"), taps)[:, :, ::2, ::2]
            number += 1
    for _ in range(arch.blocks):
        y, first = x, 0 if arch.padding == "zero" else 1
        for turn in range(2):
            y = F.pad(y, (1, 1, 1, 1), mode="constant" if arch.padding == "zero" else arch.padding)
            place = first + turn * (first + 3)
            y = F.conv2d(y, *weights(f"model.{number}.conv_block.{place}"))
            y = _norm(arch, state, f"model.{number}.conv_block.{place + 1}", y)
            y = y.relu() if turn == 0 else y
        x, number = x + y, number + 1
    for _ in range(2):
        if arch.upsample == "transpose":
            x = F.conv_transpose2d(x, *weights(f"model.{number}"), stride=2, padding=1, output_padding=1)
        elif arch.upsample == "resize":
            x = F.pad(F.interpolate(x, scale_factor=2), (1, 1, 1, 1), mode="reflect")
            x = F.conv2d(x, *weights(f"model.{number}.2"))
        else:
            mode = "bilinear" if arch.upsample == "blur" else "nearest"
            x = F.interpolate(x, scale_factor=2, mode=mode)
            number += 1
            x = F.conv2d(x, *weights(f"model.{number}"), padding=1)
        x, number = norm_relu(number + 1, x), number + 3
    return F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), *weights(f"model.{number + 1}")).tanh()


def _filtered(x: Tensor, taps: Tensor) -> Tensor:
    """Convolve each channel with `taps` along rows and columns, without padding."""
    rows = sum(tap * x[:, :, i : x.shape[2] - len(taps) + 1 + i] for i, tap in enumerate(taps))
    assert isinstance(rows, Tensor)
    both = sum(tap * rows[:, :, :, i : x.shape[3] - len(taps) + 1 + i] for i, tap in enumerate(taps))
    assert isinstance(both, Tensor)
    return both


def _unet(arch: Architecture, state: dict[str, Tensor], x: Tensor) -> Tensor:
    def weights(name: str) -> tuple[Tensor, Tensor | None]:
        return state[f"{name}.weight"], state.get(f"{name}.bias")

    prefix, skips, prefixes = "model.model", [], []
    x = F.conv2d(x, *weights(f"{prefix}.0"), stride=2, padding=1)
    prefix = f"{prefix}.1.model"
    for level in range(1, arch.levels):
        skips.append(x)
        prefixes.append(prefix)
        x = F.conv2d(F.leaky_relu(x, 0.2), *weights(f"{prefix}.1"), stride=2, padding=1)
        if level < arch.levels - 1:
            x = _norm(arch, state, f"{prefix}.2", x)
            prefix = f"{prefix}.3.model"
    for level in reversed(range(1, arch.levels)):
        prefix, first = prefixes.pop(), 3 if level == arch.levels - 1 else 5
        x = F.conv_transpose2d(x.relu(), *weights(f"{prefix}.{first}"), stride=2, padding=1)
        x = torch.cat((skips.pop(), _norm(arch, state, f"{prefix}.{first + 1}", x)), 1)
    return F.conv_transpose2d(x.relu(), *weights("model.model.3"), stride=2, padding=1).tanh()
