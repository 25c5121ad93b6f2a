"""The norms of an image that arrives in bands, InstanceNorm with the statistics of the whole image."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WholeImageNorm:
    """One norm in two passes: `watch` every band of an image, then `normalise` every band.

    Means and squared deviations of bands are merged in float64 with the pairwise update of Chan, Golub and LeVeque
    ("Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979), which subtracts no large sums.
    A layer with stored statistics uses those, as in eval mode, and an identity none: `watch` computes nothing, and the
    first pass may be left out.
    """

    def __init__(self, layer: nn.Module, input_scale: float = 1.0) -> None:
        """Compute `layer` for bands that are `input_scale` times its input, plus a constant.

        The scale cancels if `eps` is scaled with it. Stored statistics need a scale of 1.
        """
        assert isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d | nn.Identity)
        self._layer = layer
        self.needs_statistics = isinstance(layer, nn.InstanceNorm2d) and not layer.track_running_stats
        assert input_scale == 1.0 or self.needs_statistics
        if isinstance(layer, nn.Identity):
            return
        self._eps = layer.eps * input_scale**2
        self._count = 0
        self._mean = torch.zeros(layer.num_features, dtype=torch.float64)
        self._deviation = torch.zeros(layer.num_features, dtype=torch.float64)

    def watch(self, bands: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield bands [1, C, rows, W] unchanged while accumulating their statistics."""
        for band in bands:
            if self.needs_statistics:
                self._add(band)
            yield band

    def measure(self, bands: Callable[[], Iterable[Tensor]]) -> None:
        """Watch the bands that `bands` computes and keep none of them; nothing is computed without need."""
        if self.needs_statistics:
            deque(self.watch(bands()), maxlen=0)

    def normalise(self, bands: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield each band normalised, in the same dtype and in new memory."""
        if isinstance(self._layer, nn.Identity):
            yield from (band.clone() for band in bands)
            return
        arguments: tuple[Tensor, Tensor, Tensor | None, Tensor | None] | None = None
        for band in bands:
            if arguments is None:
                arguments = self._arguments(band)
            yield F.batch_norm(band, *arguments, training=False, momentum=0.0, eps=self._eps)

    def _add(self, band: Tensor) -> None:
        # Much faster on channels-last memory than torch.var_mean. The dtype of the result is that of the running
        # statistics passed in, or of the band without them: the two arguments only select float32.
        unused = torch.zeros(band.shape[1], dtype=_at_least_float32(band.dtype), device=band.device)
        mean, variance = torch.batch_norm_update_stats(band, unused, unused.clone(), 0.0)
        mean, variance = mean.double().cpu(), variance.double().cpu()
        count = band.shape[0] * band.shape[2] * band.shape[3]
        total = self._count + count
        step = mean - self._mean
        self._mean += step * (count / total)
        self._deviation += variance * count + step.square() * (self._count * (count / total))
        self._count = total

    def _arguments(self, band: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        layer = self._layer
        assert not isinstance(layer, nn.Identity)
        if not self.needs_statistics:
            assert layer.running_mean is not None
            assert layer.running_var is not None
            mean, variance = layer.running_mean, layer.running_var
        else:
            assert self._count > 0, "call watch before normalise"
            mean, variance = self._mean, self._deviation / self._count
        # Float32 for half-precision bands as well: a mean rounded to bfloat16 would shift the whole image.
        dtype = _at_least_float32(band.dtype)

        def fit(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.to(band.device, dtype)

        weight, bias = (fit(layer.weight), fit(layer.bias)) if layer.affine else (None, None)
        return mean.to(band.device, dtype), variance.to(band.device, dtype), weight, bias


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
