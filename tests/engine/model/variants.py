"""Every kind of generator in a few layers, and the networks of layouts.py that compute the same."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from engine.model.card import Architecture
from engine.model.network import GeneratorNetwork, build_generator
from tests.engine.model import layouts
from tests.engine.model.layouts import Reference, Unet

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
    module = build_generator(arch).requires_grad_(False)
    layouts.randomised(module, seed=4)
    return module


def reference(arch: Architecture, state: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Return the network of `arch` as layouts.py writes it out, with the tensors of `state`, for [N, C, H, W]."""
    channels = (arch.channels_in, arch.channels_out)
    if arch.network == "unet":
        network: nn.Module = Unet(arch.levels, arch.ngf, _norm(arch), bias=arch.bias, channels=channels)
    else:
        network = Reference(
            arch.blocks,
            arch.ngf,
            _norm(arch),
            bias=arch.bias,
            padding=arch.padding,
            down=arch.downsample,
            up=arch.upsample,
            channels=channels,
        )
    missing, unexpected = network.double().load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith(".filt") for name in missing), "only CUT's networks store their filters"
    network.eval()
    return lambda x: x + network(x) if arch.learn_residual else network(x)


def _norm(arch: Architecture) -> layouts.Norm:
    if arch.norm == "instance":
        return layouts.tracked if arch.track_running_stats else layouts.affine if arch.affine else layouts.instance
    return layouts.batch if arch.norm == "batch" else layouts.no_norm
