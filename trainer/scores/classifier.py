"""A small network that tells domain A from domain B, trained on real photos only; a judge of translations."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.model.pixels import to_network

SIDE = 96
"""Photos are looked at in this size: season shows in colour and coarse texture, artefacts of a pixel do not."""
EPOCHS = 30
BATCH = 32
RATE = 2e-3


class DomainClassifier:
    """Says how likely a photo belongs to domain B."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network.eval()

    @torch.inference_mode()
    def share_of_b(self, pixels_NHWC: Tensor) -> float:
        """Give the share of uint8 photos [N, H, W, 3] that are taken for B."""
        return float((self._network(shrink(pixels_NHWC)) > 0).float().mean())

    def accuracy(self, a_NHWC: Tensor, b_NHWC: Tensor) -> float:
        """Give the share judged right, both domains weighing the same."""
        return (1 - self.share_of_b(a_NHWC) + self.share_of_b(b_NHWC)) / 2


def train_classifier(a: Tensor, b: Tensor, seed: int = 0, epochs: int = EPOCHS) -> DomainClassifier:
    """Train on photos of both domains as `shrink` gives them; equal seeds give equal networks on one machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _build()
        photos = torch.cat([a, b])
        is_b = torch.cat([torch.zeros(len(a)), torch.ones(len(b))])
        # Both domains count the same, however many photos they have.
        weight = torch.cat([torch.full((len(a),), 0.5 / len(a)), torch.full((len(b),), 0.5 / len(b))]) * len(photos)
        steps = epochs * -(-len(photos) // BATCH)
        optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=RATE, total_steps=steps)
        for _ in range(epochs):
            for places in torch.split(torch.randperm(len(photos)), BATCH):
                scores = network(_vary(photos[places])).flatten()
                loss = F.binary_cross_entropy_with_logits(scores, is_b[places], weight[places])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
    return DomainClassifier(network)


def shrink(pixels_NHWC: Tensor) -> Tensor:
    """Bring uint8 photos [N, H, W, 3] of any size to the classifier's input [N, 3, SIDE, SIDE]."""
    small = F.interpolate(to_network(pixels_NHWC), (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return small.contiguous()


def _build() -> nn.Module:
    channels = (3, 24, 48, 96)
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(channels[-1], 1))


def _vary(photos: Tensor) -> Tensor:
    """Mirror half of [N, 3, SIDE, SIDE], move each by up to an eighth, and change its brightness a little."""
    count = len(photos)
    mirrored = torch.where(torch.rand(count, 1, 1, 1) < 0.5, photos, photos.flip(3))
    margin = SIDE // 8
    padded = F.pad(mirrored, (margin,) * 4, mode="reflect")
    top, left = torch.randint(2 * margin + 1, (2,)).tolist()
    return padded[:, :, top : top + SIDE, left : left + SIDE] * (1 + 0.1 * torch.randn(count, 1, 1, 1))
