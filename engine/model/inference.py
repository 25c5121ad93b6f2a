"""A generator rewritten for inference: the same function of the same weights, in operators that run faster.

    BatchNorm            part of the convolution before it (`engine.model.folding`)
    resize up-sampling   one transposed convolution (`engine.model.upsampling`)
    InstanceNorm         sums and sums of squares in float32, then one scale and one shift per channel
    network input        exact in every dtype where an InstanceNorm follows (`engine.model.pixels.to_centred`)
    last 7x7 to 3        a 7x1 convolution to 21 channels and seven shifted sums: vector units and tensor cores compute
                         at least 16 channels at a time, so that 3 channels waste most of their work
    residual             added in float32

First and last layers may have another dtype than the rest: rounding the first convolution to bfloat16 costs the most
accuracy, because the following InstanceNorm amplifies it, and both together are 2.5 % of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.layers import BlurDown, BlurUp
from engine.model.network import GeneratorNetwork
from engine.model.pixels import CENTRED_SCALE, to_centred, to_network, to_pixels
from engine.model.unet import UnetGenerator
from engine.model.upsampling import folded_for_inference


class InferenceGenerator(nn.Module):
    """Translate uint8 [N, H, W, 3] to the same; H and W are multiples of the generator's stride."""

    def __init__(
        self,
        generator: GeneratorNetwork,
        dtype: torch.dtype,
        *,
        outer_dtype: torch.dtype | None = None,
        compiled: bool = False,
        norm_by_rows: bool = True,
    ) -> None:
        """Rewrite `generator`, which stays unchanged.

        `outer_dtype` is the dtype of the first and last layers and their norms, `dtype` that of all others. `compiled`
        selects operators for a compiler to fuse instead of PyTorch's own kernels. `norm_by_rows` computes statistics
        row by row first, so that a compiler for CPUs can split the rows of one image among threads.
        """
        super().__init__()
        arch = generator.arch
        self.dtype = dtype
        self.outer_dtype = outer_dtype or dtype
        self._learn_residual = arch.learn_residual
        self._channels = arch.channels_in
        # A shift of the input cancels in the statistics, unless zeros were padded to it.
        self._centred = arch.network == "resnet" and arch.norm == "instance" and not arch.track_running_stats

        def norm_of(layer: nn.InstanceNorm2d, input_scale: float = 1.0) -> nn.Module:
            return FusedNorm(layer, input_scale, norm_by_rows) if compiled else EagerNorm(layer, input_scale)

        rewrite = _Rewriting(norm_of)
        folded = folded_for_inference(generator)
        if isinstance(folded, UnetGenerator):
            down, submodule, relu, up, tanh = folded.model.model
            self.head = nn.Sequential(rewrite(down, self.outer_dtype))
            self.body = nn.Sequential(rewrite(submodule, dtype))
            self.tail = nn.Sequential(relu)
            self.last = nn.Sequential(rewrite(up, self.outer_dtype), tanh)
        else:
            layers = list(folded.model)
            pad, conv, norm, relu = layers[:4]
            if isinstance(norm, nn.InstanceNorm2d):
                norm = norm_of(norm, CENTRED_SCALE if self._centred else 1.0)
            self.head = nn.Sequential(pad, rewrite(conv, self.outer_dtype), norm, relu)
            *body, up_norm, up_relu, tail_pad, tail_conv, tanh = layers[4:]
            self.body = nn.Sequential(*(rewrite(layer, dtype) for layer in body))
            self.tail = nn.Sequential(rewrite(up_norm, dtype), up_relu, tail_pad)
            last = ConvByRows(cast(nn.Conv2d, tail_conv), self.outer_dtype, shifted_sums=compiled)
            self.last = nn.Sequential(last, tanh)
        self.eval().requires_grad_(False)

    def forward(self, pixels_NHWC: Tensor) -> Tensor:
        """Translate uint8 [N, H, W, 3]."""
        return self.finish(self.body(self.begin(pixels_NHWC)), pixels_NHWC)

    def begin(self, pixels_NHWC: Tensor) -> Tensor:
        """Return the input of the body."""
        to_input = to_centred if self._centred else to_network
        x: Tensor = self.head(to_input(pixels_NHWC, self.outer_dtype, self._channels))
        return x.to(self.dtype)

    def finish(self, x: Tensor, pixels_NHWC: Tensor) -> Tensor:
        """Return the result for an output of the body."""
        made: Tensor = self.last(self.tail(x).to(self.outer_dtype))
        return to_pixels(
            made.float() + to_network(pixels_NHWC, channels=self._channels) if self._learn_residual else made
        )


class _Rewriting:
    """Replace norms and set the dtype of convolutions and filters, in place, down to the innermost layer."""

    def __init__(self, norm_of: Callable[[nn.InstanceNorm2d], nn.Module]) -> None:
        self._norm_of = norm_of

    def __call__(self, layer: nn.Module, dtype: torch.dtype) -> nn.Module:
        if isinstance(layer, nn.InstanceNorm2d):
            return self._norm_of(layer)
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | BlurDown | BlurUp):
            return layer.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
        for name, child in list(layer.named_children()):
            setattr(layer, name, self(child, dtype))
        return layer


class FusedNorm(nn.Module):
    """InstanceNorm for a compiler: one pass for the statistics, one multiplication and addition per value.

    Values are shifted by the first one of their channel before they are squared, so that the variance is not the
    difference of two large sums; a constant channel has a variance of exactly zero.
    """

    def __init__(self, norm: nn.InstanceNorm2d, input_scale: float = 1.0, by_rows: bool = True) -> None:
        """Compute `norm` for inputs scaled by `input_scale`."""
        super().__init__()
        self._eps = norm.eps * input_scale**2
        self._by_rows = by_rows
        self.is_stored = norm.track_running_stats
        self.weight, self.bias = _buffer(norm.weight), _buffer(norm.bias)
        if self.is_stored:
            mean, variance = cast(Tensor, norm.running_mean).float(), cast(Tensor, norm.running_var).float()
            scale, shift = self.scale_and_shift(mean[None], variance[None])
            self.scale, self.shift = nn.Buffer(scale), nn.Buffer(shift)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, H, W] in float32; returns the dtype of `x`."""
        values = x.float()
        if self.is_stored:
            scale, shift = self.stored_scale_and_shift()
        else:
            # Stacked, so that the compiler stores both per channel instead of recomputing them for every value.
            scale, shift = torch.stack(self.scale_and_shift(*self._statistics(values))).unbind()
        return (values * scale[:, :, None, None] + shift[:, :, None, None]).to(x.dtype)

    def stored_scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the factor and the summand of each channel, [1, C], of a norm with stored statistics."""
        return cast(Tensor, self.scale), cast(Tensor, self.shift)

    def _statistics(self, values: Tensor) -> tuple[Tensor, Tensor]:
        count = values.shape[2] * values.shape[3]
        first = values[:, :, :1, :1]
        mean, variance = moments(values - first, self._sum, count)
        return mean + first[:, :, 0, 0], variance

    def _sum(self, values: Tensor) -> Tensor:
        return values.sum(3).sum(2) if self._by_rows else values.sum((2, 3))

    def scale_and_shift(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factor and the summand of each channel for its statistics, [..., C]."""
        scale = torch.rsqrt(variance + self._eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        return scale, shift if self.bias is None else shift + self.bias


def moments(values: Tensor, total: Callable[[Tensor], Tensor], count: int | Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of `count` values of each channel; `total` adds them up. Others are masked to zero."""
    mean, mean_square = total(values) / count, total(values * values) / count
    return mean, (mean_square - mean * mean).clamp_min(0.0)


class EagerNorm(nn.Module):
    """InstanceNorm with PyTorch's own kernels.

    One image is normalised by the kernel of BatchNorm, which on a CPU keeps channels-last memory format and takes a
    fifth to a tenth of the time.
    """

    def __init__(self, norm: nn.InstanceNorm2d, input_scale: float = 1.0) -> None:
        """Compute `norm` for inputs scaled by `input_scale`."""
        super().__init__()
        self._eps = norm.eps * input_scale**2
        self.weight, self.bias = _buffer(norm.weight), _buffer(norm.bias)
        self.running_mean, self.running_var = _buffer(norm.running_mean), _buffer(norm.running_var)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, H, W]; returns the dtype of `x`."""
        stored = self.running_mean is not None
        if len(x) == 1 or stored:
            statistics = (self.running_mean, self.running_var)
            return F.batch_norm(x, *statistics, self.weight, self.bias, training=not stored, eps=self._eps)
        return F.instance_norm(x, None, None, self.weight, self.bias, eps=self._eps)


def _buffer(values: Tensor | None) -> nn.Buffer | None:
    return None if values is None else nn.Buffer(values.detach().float().clone())


class ConvByRows(nn.Module):
    """A KxK convolution to few channels as a Kx1 convolution to K times as many, and K shifted sums.

    out[c, y, x] = bias[c] + sum over k of rows[k, c, y, x + k], where rows[k, c] is the convolution of the input with
    column k of the kernel. The same products in another order.
    """

    def __init__(self, conv: nn.Conv2d, dtype: torch.dtype, *, shifted_sums: bool) -> None:
        """Compute `conv`, which has no padding, in `dtype`.

        `shifted_sums` adds in float32 and leaves fusing to a compiler; otherwise a second convolution adds.
        """
        super().__init__()
        channels, inputs, rows, columns = conv.weight.shape
        weight = conv.weight.detach().permute(3, 0, 1, 2).reshape(columns * channels, inputs, rows, 1)
        self.kernel_size = (rows, columns)
        self._columns, self._channels = columns, channels
        self.weight = nn.Buffer(weight.to(dtype).contiguous(memory_format=torch.channels_last))
        bias = torch.zeros(channels) if conv.bias is None else conv.bias.detach()
        self.bias = nn.Buffer(bias.to(torch.float32 if shifted_sums else dtype))
        adder = torch.zeros(channels, columns * channels, 1, columns)
        for column in range(columns):
            adder[:, column * channels : (column + 1) * channels, 0, column] = torch.eye(channels)
        self.adder = None if shifted_sums else nn.Buffer(adder.to(dtype).contiguous(memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C', H - K + 1, W - K + 1]."""
        rows = F.conv2d(x, self.weight)
        if self.adder is not None:
            return F.conv2d(rows, self.adder, self.bias)
        width = rows.shape[3] - self._columns + 1
        total: Tensor = self.bias[None, :, None, None]
        for column in range(self._columns):
            channels = rows[:, column * self._channels : (column + 1) * self._channels]
            total = total + channels[:, :, :, column : column + width].float()
        return total
