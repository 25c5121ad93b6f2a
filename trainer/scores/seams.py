"""Coloured seams along the borders of white areas, such as a red line where snow meets ground."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.pixels import to_network

WHITE_ABOVE = 0.4
"""Darkest channel of a white pixel, range [-1, 1]."""
REACH = 3
"""Pixels on both sides of a border that belong to it."""
SURROUNDINGS = 17
"""Side in pixels of the square against whose mean colour a pixel is compared."""


def seam_energy(original_NHWC: Tensor, translated_NHWC: Tensor) -> float:
    """Return the colour contrast of `translated` at borders of white areas of `original`, over that of `original`.

    Both are uint8 [N, H, W, 3]. Colour contrast is the distance of a pixel's chrominance from the mean of its
    surroundings. 1 means no seams; also returned when the originals have no white areas.
    """
    white = (to_network(original_NHWC).amin(1, keepdim=True) > WHITE_ABOVE).float()
    mostly = (F.avg_pool2d(white, SURROUNDINGS, 1, SURROUNDINGS // 2) > 0.5).float()  # areas instead of single pixels
    grown = F.max_pool2d(mostly, 2 * REACH + 1, 1, REACH)
    shrunk = -F.max_pool2d(-mostly, 2 * REACH + 1, 1, REACH)
    border = (grown - shrunk).bool()[:, 0]
    if not border.any():
        return 1.0
    before, after = (_colour_contrast(pixels)[border].mean() for pixels in (original_NHWC, translated_NHWC))
    return float(after / before.clamp_min(1e-3))


def _colour_contrast(pixels_NHWC: Tensor) -> Tensor:
    """Return [N, H, W]: distance of each pixel's chrominance from the mean around it."""
    red, green, blue = to_network(pixels_NHWC).float().unbind(1)
    chrominance = torch.stack([red - green, blue - (red + green) / 2], 1)
    surroundings = F.avg_pool2d(chrominance, SURROUNDINGS, 1, SURROUNDINGS // 2, count_include_pad=False)
    contrast: Tensor = (chrominance - surroundings).norm(dim=1)
    return contrast
