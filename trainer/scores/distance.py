"""Sliced Wasserstein distance between two sets of photos; needs no pretrained network.

Karras, Aila, Laine, Lehtinen: "Progressive Growing of GANs", ICLR 2018, section 5. Both sets are decomposed into
Laplacian pyramids. At each level, local patches are projected onto random directions, where the Wasserstein distance of
two samples of equal size is the mean distance of their sorted projections.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.pixels import to_network

LEVELS = 3
"""Pyramid levels: full size, a half and a quarter."""
PATCH = 7
"""Side of a patch in pixels."""
PATCHES_PER_PHOTO = 64
DIRECTIONS = 256


def sliced_wasserstein(first_NHWC: Tensor, second_NHWC: Tensor, seed: int = 0) -> float:
    """Return the distance of uint8 photos [N, H, W, 3] and [M, H, W, 3], averaged over the levels; 0 for equal sets.

    Patches are normalised channel by channel with the statistics of `first_NHWC`, so that 1 is about one standard
    deviation. Equal seeds use equal places and directions.
    """
    random = torch.Generator().manual_seed(seed)
    first, second = _pyramid(first_NHWC), _pyramid(second_NHWC)
    distances = [_level_distance(a, b, random) for a, b in zip(first, second, strict=True)]
    return sum(distances) / len(distances)


def _level_distance(first: Tensor, second: Tensor, random: torch.Generator) -> float:
    patches = [_patches(level, random) for level in (first, second)]
    mean = patches[0].mean(dim=(0, 2), keepdim=True)
    std = patches[0].std(dim=(0, 2), keepdim=True) + 1e-8
    directions = torch.randn(3 * PATCH * PATCH, DIRECTIONS, generator=random)
    directions /= directions.norm(dim=0)
    projections = [(((patch - mean) / std).flatten(1) @ directions) for patch in patches]
    quantiles = [_sorted_quantiles(projection) for projection in projections]
    return (quantiles[0] - quantiles[1]).abs().mean().item()


def _sorted_quantiles(projections: Tensor, count: int = 2048) -> Tensor:
    """Return `count` evenly spaced quantiles of each column of [P, directions]: sets may differ in size."""
    ordered = projections.sort(dim=0).values
    places = torch.linspace(0, len(ordered) - 1, count).round().long()
    return ordered[places]


def _patches(level: Tensor, random: torch.Generator) -> Tensor:
    """Return patches [N * PATCHES_PER_PHOTO, 3, PATCH * PATCH] at random places of [N, 3, H, W]."""
    count, _, height, width = level.shape
    rows = torch.randint(height - PATCH + 1, (count * PATCHES_PER_PHOTO,), generator=random)
    columns = torch.randint(width - PATCH + 1, (count * PATCHES_PER_PHOTO,), generator=random)
    photos = torch.arange(count).repeat_interleave(PATCHES_PER_PHOTO)
    windows = level.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # a view [N, 3, rows, columns, PATCH, PATCH]
    return windows[photos, :, rows, columns].flatten(2)


def _pyramid(pixels_NHWC: Tensor) -> list[Tensor]:
    """Return the Laplacian pyramid of [N, H, W, 3], from fine to coarse; the last level is the low-pass image."""
    image = to_network(pixels_NHWC)
    levels = []
    for _ in range(LEVELS - 1):
        smaller = F.avg_pool2d(image, 2)
        enlarged = F.interpolate(smaller, image.shape[2:], mode="bilinear", align_corners=False)
        levels.append(image - enlarged)
        image = smaller
    return [*levels, image]
