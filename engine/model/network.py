"""The ResNet generator of CycleGAN.

Zhu, Park, Isola, Efros: "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks",
ICCV 2017, section 4 and appendix 7.2. Submodules are named and numbered as in the authors' PyTorch code, so that its
checkpoints load by name.
"""

from __future__ import annotations

from torch import Tensor, nn

from engine.model.card import Architecture


class ResnetBlock(nn.Module):
    """x + (pad, conv3x3, norm, relu, pad, conv3x3, norm)(x); [N, C, H, W] in and out."""

    def __init__(self, channels: int, arch: Architecture) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, kernel_size=3),
            _norm(channels, arch),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, kernel_size=3),
            _norm(channels, arch),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        return x + self.conv_block(x)  # type: ignore[no-any-return]


class ResnetGenerator(nn.Module):
    """c7s1-ngf, d2, d4, R4 x blocks, u2, u1, c7s1-3, tanh, in the paper's notation; `learn_residual` adds the input.

    Takes [N, 3, H, W] floats in [-1, 1], H and W multiples of 4 and at least 16; returns the same shape and range.
    With `learn_residual` the sum may leave the range and is clamped only when it is converted to bytes, so that in
    training the losses see everything that is added to white or black.
    """

    def __init__(self, arch: Architecture | None = None) -> None:
        super().__init__()
        self.arch = arch = arch if arch is not None else Architecture()
        ngf = arch.ngf
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, ngf, kernel_size=7),
            *_norm_relu(ngf, arch),
        ]
        for channels in (ngf, 2 * ngf):
            layers += [
                nn.Conv2d(channels, 2 * channels, kernel_size=3, stride=2, padding=1),
                *_norm_relu(2 * channels, arch),
            ]
        layers += [ResnetBlock(4 * ngf, arch) for _ in range(arch.blocks)]
        for channels in (4 * ngf, 2 * ngf):
            layers += [_upsample(channels, channels // 2, arch), *_norm_relu(channels // 2, arch)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, 3, kernel_size=7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Translate [N, 3, H, W] in [-1, 1]; H and W are multiples of 4."""
        made: Tensor = self.model(x)
        return x + made if self.arch.learn_residual else made


def _norm(channels: int, arch: Architecture) -> nn.Module:
    return nn.InstanceNorm2d(channels, affine=arch.affine, track_running_stats=arch.track_running_stats)


def _norm_relu(channels: int, arch: Architecture) -> list[nn.Module]:
    return [_norm(channels, arch), nn.ReLU(inplace=True)]


def _upsample(channels_in: int, channels_out: int, arch: Architecture) -> nn.Module:
    if arch.upsample == "transpose":
        return nn.ConvTranspose2d(channels_in, channels_out, kernel_size=3, stride=2, padding=1, output_padding=1)
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.ReflectionPad2d(1),
        nn.Conv2d(channels_in, channels_out, kernel_size=3),
    )
