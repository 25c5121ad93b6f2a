"""A small classifier of domain A against domain B, trained on real photos only, to judge translations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.pixels import to_network

SIDE = 96
"""Side in pixels of the input: a season shows in colour and coarse texture, artefacts of single pixels do not."""
EPOCHS = 60
MAX_STEPS = 1500
"""Enough for a set of thousands; small sets stop after `EPOCHS`."""
BATCH = 32
RATE = 2e-3
SMALLEST_CROP = 0.7
"""Side of the smallest random crop, as a share of the photo's."""


class DomainClassifier:
    """Assigns photos to domain A or B."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval()

    @torch.inference_mode()
    def share_of_b(self, pixels_NHWC: Tensor) -> float:
        """Return the share of uint8 photos [N, H, W, 3] assigned to B, by the mean score of photo and mirror image."""
        photos = shrink(pixels_NHWC)
        return float((self._network(photos) + self._network(photos.flip(3)) > 0).float().mean())

    def accuracy(self, a_NHWC: Tensor, b_NHWC: Tensor) -> float:
        """Return the share assigned correctly; both domains have the same weight."""
        return (1 - self.share_of_b(a_NHWC) + self.share_of_b(b_NHWC)) / 2


def train_classifier(a: Tensor, b: Tensor, seed: int = 0, epochs: int = EPOCHS) -> DomainClassifier:
    """Train on photos of both domains as returned by `shrink`; equal seeds give equal networks on one machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build()
        photos = torch.cat([a, b])
        is_b = torch.cat([torch.zeros(len(a)), torch.ones(len(b))])
        # Both domains have the same weight, whatever their numbers of photos.
        weight = torch.cat([torch.full((len(a),), 0.5 / len(a)), torch.full((len(b),), 0.5 / len(b))]) * len(photos)
        steps = min(epochs * -(-len(photos) // BATCH), MAX_STEPS)
        optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=steps)
        for places in islice(_batches(len(photos)), steps):
            scores = network(_vary(photos[places])).flatten()
            loss = F.binary_cross_entropy_with_logits(scores, is_b[places], weight[places])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return DomainClassifier(network)


def shrink(pixels_NHWC: Tensor) -> Tensor:
    """Resize uint8 photos [N, H, W, 3] to the classifier's input [N, 3, SIDE, SIDE] in [-1, 1]."""
    small = F.interpolate(to_network(pixels_NHWC), (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return small.contiguous()


def _batches(count: int) -> Iterator[Tensor]:
    """Yield batches of places in random order without end; every epoch shows each photo once."""
    while True:
        yield from torch.split(torch.randperm(count), BATCH)


def _build() -> nn.Module:
    channels = (3, 24, 48, 96)
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels[-1], 1))


def _vary(photos: Tensor) -> Tensor:
    """Return a random crop of each photo as [N, 3, SIDE, SIDE], half of them mirrored, of varied brightness."""
    count = len(photos)
    size = SMALLEST_CROP + (1 - SMALLEST_CROP) * torch.rand(count, 1)
    mirror = torch.where(torch.rand(count, 1) < 0.5, 1.0, -1.0)
    shift = (1 - size) * (2 * torch.rand(count, 2) - 1)
    zero = torch.zeros_like(size)
    transform = torch.cat([size * mirror, zero, shift[:, :1], zero, size, shift[:, 1:]], 1).view(count, 2, 3)
    grid = F.affine_grid(transform, list(photos.shape), align_corners=False)
    crops = F.grid_sample(photos, grid, padding_mode="reflection", align_corners=False)
    return crops * (1 + 0.1 * torch.randn(count, 1, 1, 1))
