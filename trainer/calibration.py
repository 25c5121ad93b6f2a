"""Statistics of a generator's normalisations, measured once on training crops and then kept.

With InstanceNorm, a strong spike at one place changes the scale of a whole feature map, and generators learn to use
that: translations get blobs and dark patches around such spikes (Karras et al., "Analyzing and Improving the Image
Quality of StyleGAN", CVPR 2020, section 2). With stored statistics, a layer is a fixed scale and shift: a spike has no
effect elsewhere, and the brightness and contrast of a photo reach every layer.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

CALIBRATION_CROPS = 64
"""Training crops on which the statistics of a new run are measured."""


def needs_statistics(generator: nn.Module) -> bool:
    """Return whether `generator` stores statistics and none were measured or loaded yet."""
    return any(layer.track_running_stats and not layer.num_batches_tracked for layer in _norms(generator))


@torch.no_grad()
def store_statistics(generator: nn.Module, batches: Iterable[Tensor]) -> None:
    """Store the mean statistics of single images in every normalisation; `batches` are [N, 3, H, W] in [-1, 1].

    While they are measured, each layer normalises with the image's own statistics, as a generator trained with
    InstanceNorm expects.
    """
    norms = list(_norms(generator))
    sums = [torch.zeros(2, layer.num_features) for layer in norms]
    images = 0

    def measure(place: int, x: Tensor) -> None:
        sums[place] += torch.stack([x.mean((2, 3)).sum(0), x.var((2, 3), unbiased=False).sum(0)])

    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, place=place: measure(place, inputs[0]))
        for place, layer in enumerate(norms)
    ]
    for layer in norms:
        layer.track_running_stats = False
    for batch in batches:
        generator(batch)
        images += len(batch)
    for layer, hook, (mean, variance) in zip(norms, hooks, sums, strict=True):
        hook.remove()
        layer.track_running_stats = True
        assert layer.running_mean is not None
        assert layer.running_var is not None
        assert layer.num_batches_tracked is not None
        layer.running_mean.copy_(mean / images)
        layer.running_var.copy_(variance / images)
        layer.num_batches_tracked.fill_(images)


def _norms(network: nn.Module) -> Iterable[nn.InstanceNorm2d]:
    return (layer for layer in network.modules() if isinstance(layer, nn.InstanceNorm2d))
