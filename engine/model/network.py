"""The ResNet generator of CycleGAN and its variants; `build_generator` builds any generator.

Zhu, Park, Isola, Efros: "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
ICCV 2017, section 4 and appendix 7.2. Submodules are named and numbered as in the authors' PyTorch code, and with low-
pass filters as in that of CUT (Park, Efros, Zhang, Zhu, ECCV 2020), so that their checkpoints load by name.
"""

from __future__ import annotations

from torch import Tensor, nn

from engine.model.card import Architecture
from engine.model.layers import BlurDown, BlurUp, norm_layer
from engine.model.unet import UnetGenerator

_PADS = {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d}


class ResnetBlock(nn.Module):
    """x + (pad, conv3x3, norm, relu, pad, conv3x3, norm)(x); [N, C, H, W] in and out."""

    def __init__(self, channels: int, arch: Architecture) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            *_padded_conv(channels, arch),
            norm_layer(channels, arch),
            nn.ReLU(inplace=True),
            *_padded_conv(channels, arch),
            norm_layer(channels, arch),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        return x + self.conv_block(x)  # type: ignore[no-any-return]


class ResnetGenerator(nn.Module):
    """c7s1-ngf, d2, d4, R4 x blocks, u2, u1, c7s1-3, tanh, in the paper's notation; `learn_residual` adds the input.

    Takes [N, C, H, W] floats in [-1, 1], H and W multiples of 4 and at least 16; returns the same size and range with
    the output's channels. With `learn_residual` the sum may leave the range and is clamped only when it is converted to
    bytes, so that in training the losses see everything that is added to white or black.
    """

    def __init__(self, arch: Architecture | None = None) -> None:
        """Build the network; raises `ValueError` if `arch` is no ResNet."""
        super().__init__()
        self.arch = arch = arch if arch is not None else Architecture()
        if arch.network != "resnet":
            raise ValueError(f"not a ResNet: {arch.network}")
        ngf = arch.ngf
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(arch.channels_in, ngf, kernel_size=7, bias=arch.bias),
            *_norm_relu(ngf, arch),
        ]
        for channels in (ngf, 2 * ngf):
            layers += _downsample(channels, 2 * channels, arch)
        layers += [ResnetBlock(4 * ngf, arch) for _ in range(arch.blocks)]
        for channels in (4 * ngf, 2 * ngf):
            layers += [*_upsample(channels, channels // 2, arch), *_norm_relu(channels // 2, arch)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, arch.channels_out, kernel_size=7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Translate [N, C, H, W] in [-1, 1]; H and W are multiples of 4."""
        made: Tensor = self.model(x)
        return x + made if self.arch.learn_residual else made


GeneratorNetwork = ResnetGenerator | UnetGenerator


def build_generator(arch: Architecture) -> GeneratorNetwork:
    """Return a network of `arch` with PyTorch's initial weights."""
    return UnetGenerator(arch) if arch.network == "unet" else ResnetGenerator(arch)


def _norm_relu(channels: int, arch: Architecture) -> list[nn.Module]:
    return [norm_layer(channels, arch), nn.ReLU(inplace=True)]


def _padded_conv(channels: int, arch: Architecture) -> list[nn.Module]:
    if arch.padding == "zero":
        return [nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=arch.bias)]
    return [_PADS[arch.padding](1), nn.Conv2d(channels, channels, kernel_size=3, bias=arch.bias)]


def _downsample(channels_in: int, channels_out: int, arch: Architecture) -> list[nn.Module]:
    stride = 1 if arch.downsample == "blur" else 2
    conv = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=arch.bias)
    blur = [BlurDown(channels_out)] if arch.downsample == "blur" else []
    return [conv, *_norm_relu(channels_out, arch), *blur]


def _upsample(channels_in: int, channels_out: int, arch: Architecture) -> list[nn.Module]:
    if arch.upsample == "transpose":
        return [
            nn.ConvTranspose2d(
                channels_in, channels_out, kernel_size=3, stride=2, padding=1, output_padding=1, bias=arch.bias
            )
        ]
    if arch.upsample == "resize":
        conv = nn.Conv2d(channels_in, channels_out, kernel_size=3, bias=arch.bias)
        return [nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.ReflectionPad2d(1), conv)]
    enlarge = BlurUp(channels_in) if arch.upsample == "blur" else nn.Upsample(scale_factor=2, mode="nearest")
    return [enlarge, nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1, bias=arch.bias)]
