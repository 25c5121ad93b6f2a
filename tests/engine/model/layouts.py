"""Generators written out in plain PyTorch after the published code of other projects, independent of the engine's.

Checkpoints of these networks are imported (kinds.py), and the engine's networks are compared with them (variants.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]

PADS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}


def instance(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels)


def affine(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True)


def tracked(channels: int) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=True, track_running_stats=True)


def batch(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels)


def no_norm(channels: int) -> nn.Module:
    return nn.Identity()


class Block(nn.Module):
    """A residual block of pytorch-CycleGAN-and-pix2pix."""

    def __init__(self, channels: int, norm: Norm, bias: bool, padding: str, dropout: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (False, True):
            layers += [PADS[padding](1)] if padding in PADS else []
            layers += [nn.Conv2d(channels, channels, 3, padding=0 if padding in PADS else 1, bias=bias), norm(channels)]
            layers += [] if last else [nn.ReLU(True)]
            layers += [nn.Dropout(0.5)] if dropout and not last else []
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)  # type: ignore[no-any-return]


class Reference(nn.Module):
    """ResnetGenerator of pytorch-CycleGAN-and-pix2pix.

    With `down` and `up` of `blur` it is that of CUT and FastCUT. `up` of `nearest` has the up-sampling of PyTorch-GAN,
    and `resize` the same with reflection padding (Odena, Dumoulin, Olah: "Deconvolution and Checkerboard Artifacts").
    """

    def __init__(
        self,
        blocks: int = 2,
        ngf: int = 4,
        norm: Norm = instance,
        *,
        bias: bool = True,
        padding: str = "reflect",
        dropout: bool = False,
        down: Literal["strided", "blur"] = "strided",
        up: Literal["transpose", "blur", "nearest", "resize"] = "transpose",
        channels: tuple[int, int] = (3, 3),
        downs: int = 2,
    ) -> None:
        super().__init__()
        model: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(channels[0], ngf, 7, bias=bias), norm(ngf)]
        model += [nn.ReLU(True)]
        widths = [ngf * 2**level for level in range(downs + 1)]
        for width in widths[:-1]:
            stride = 1 if down == "blur" else 2
            model += [nn.Conv2d(width, width * 2, 3, stride, 1, bias=bias), norm(width * 2), nn.ReLU(True)]
            model += [Downsample(width * 2)] if down == "blur" else []
        model += [Block(widths[-1], norm, bias, padding, dropout) for _ in range(blocks)]
        for width in widths[:0:-1]:
            conv = nn.Conv2d(width, width // 2, 3, 1, 0 if up == "resize" else 1, bias=bias)
            if up == "blur":
                model += [Upsample(width), conv]
            elif up == "nearest":
                model += [nn.Upsample(scale_factor=2), conv]
            elif up == "resize":
                model += [nn.Sequential(nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), conv)]
            else:
                model += [nn.ConvTranspose2d(width, width // 2, 3, 2, 1, 1, bias=bias)]
            model += [norm(width // 2), nn.ReLU(True)]
        model += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, channels[1], 7), nn.Tanh()]
        self.model = nn.Sequential(*model)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


class Downsample(nn.Module):
    """CUT's anti-aliased halving."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0])
        kernel = torch.outer(row, row)
        self.register_buffer("filt", (kernel / kernel.sum())[None, None].repeat(channels, 1, 1, 1))
        self.pad = nn.ReflectionPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.pad(x), self.filt, stride=2, groups=x.shape[1])


class Upsample(nn.Module):
    """CUT's anti-aliased doubling."""

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = torch.outer(row, row)
        self.register_buffer("filt", (kernel / kernel.sum() * 4)[None, None].repeat(channels, 1, 1, 1))
        self.pad = nn.ReplicationPad2d(1)

    def forward(self, x: Tensor) -> Tensor:
        enlarged = F.conv_transpose2d(self.pad(x), self.filt, stride=2, padding=2, groups=x.shape[1])
        return enlarged[:, :, 1:-1, 1:-1]


class GanBlock(nn.Module):
    """A residual block of PyTorch-GAN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
        again = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
        self.block = nn.Sequential(*half, nn.ReLU(inplace=True), *again)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)  # type: ignore[no-any-return]


class PytorchGan(nn.Module):
    """GeneratorResNet of PyTorch-GAN's CycleGAN."""

    def __init__(self, blocks: int = 2, ngf: int = 4, *, reflect: bool = False) -> None:
        """With `reflect`, up-sampling layers pad by reflection, as many derivatives do against dark borders."""
        super().__init__()
        model: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, ngf, 7), nn.InstanceNorm2d(ngf), nn.ReLU()]
        for width in (ngf, ngf * 2):
            model += [nn.Conv2d(width, width * 2, 3, 2, 1), nn.InstanceNorm2d(width * 2), nn.ReLU()]
        model += [GanBlock(ngf * 4) for _ in range(blocks)]
        for width in (ngf * 4, ngf * 2):
            model += [nn.Upsample(scale_factor=2), *([nn.ReflectionPad2d(1)] if reflect else [])]
            model += [nn.Conv2d(width, width // 2, 3, 1, 0 if reflect else 1)]
            model += [nn.InstanceNorm2d(width // 2), nn.ReLU()]
        model += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*model)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


class Skip(nn.Module):
    """UnetSkipConnectionBlock of pytorch-CycleGAN-and-pix2pix."""

    def __init__(
        self,
        outer: int,
        inner: int,
        norm: Norm,
        bias: bool,
        sub: nn.Module | None,
        ends: tuple[int, int] | None,
        dropout: bool,
    ) -> None:
        super().__init__()
        self.outermost = ends is not None
        down = nn.Conv2d(ends[0] if ends else outer, inner, 4, 2, 1, bias=bias)
        if ends is not None and sub is not None:
            layers = [down, sub, nn.ReLU(True), nn.ConvTranspose2d(inner * 2, ends[1], 4, 2, 1), nn.Tanh()]
        elif sub is None:
            up = nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias)
            layers = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, norm(outer)]
        else:
            up = nn.ConvTranspose2d(inner * 2, outer, 4, 2, 1, bias=bias)
            layers = [nn.LeakyReLU(0.2, True), down, norm(inner), sub, nn.ReLU(True), up, norm(outer)]
            layers += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.model(x)
        return made if self.outermost else torch.cat([x, made], 1)


class Unet(nn.Module):
    """UnetGenerator of pytorch-CycleGAN-and-pix2pix."""

    def __init__(
        self,
        levels: int = 5,
        ngf: int = 2,
        norm: Norm = batch,
        *,
        bias: bool = False,
        dropout: bool = True,
        channels: tuple[int, int] = (3, 3),
    ) -> None:
        super().__init__()
        block = Skip(ngf * 8, ngf * 8, norm, bias, None, None, False)
        for _ in range(levels - 5):
            block = Skip(ngf * 8, ngf * 8, norm, bias, block, None, dropout)
        for outer, inner in ((4, 8), (2, 4), (1, 2)):
            block = Skip(ngf * outer, ngf * inner, norm, bias, block, None, False)
        self.model = Skip(0, ngf, norm, bias, block, channels, False)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)  # type: ignore[no-any-return]


class Discriminator(nn.Module):
    """NLayerDiscriminator of pytorch-CycleGAN-and-pix2pix."""

    def __init__(self, ndf: int = 4, norm: Norm = instance) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, ndf, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        for width, stride in ((ndf, 2), (ndf * 2, 2), (ndf * 4, 1)):
            layers += [nn.Conv2d(width, width * 2, 4, stride, 1), norm(width * 2), nn.LeakyReLU(0.2, True)]
        self.model = nn.Sequential(*layers, nn.Conv2d(ndf * 8, 1, 4, 1, 1))


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Set every parameter and statistic to a value that has an effect, and return the network in eval mode."""
    random = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            assert layer.weight is not None
            scale = 1.5 * layer.weight[0].numel() ** -0.5
            layer.weight.data.copy_(torch.randn(layer.weight.shape, generator=random) * scale)
            if layer.bias is not None:
                layer.bias.data.copy_(torch.randn(layer.bias.shape, generator=random) * 0.2)
        elif isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d):
            for name, value in layer.state_dict().items():
                if value.is_floating_point():
                    near = 0.2 * torch.randn(value.shape, generator=random)
                    value.copy_(near if name in ("bias", "running_mean") else 1 + near.abs())
    return network.eval()
