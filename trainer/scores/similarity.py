"""How far two images of the same scene are apart: luminance, structural similarity, mean absolute difference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.model.pixels import to_network

WINDOW = 11
SIGMA = 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def luminance(pixels_NHWC: Tensor) -> Tensor:
    """Return the luminance [N, 1, H, W] in 0 to 255, with the weights of ITU-R BT.601."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    return (pixels_NHWC.float() @ weights)[:, None]


def ssim(first_NHWC: Tensor, second_NHWC: Tensor) -> float:
    """Return the mean structural similarity of the luminance of two sets of uint8 images; 1 for equal ones.

    Wang, Bovik, Sheikh, Simoncelli: "Image Quality Assessment", IEEE TIP 2004, equation 13, with the paper's Gaussian
    window of 11x11 pixels and constants.
    """
    x, y = luminance(first_NHWC), luminance(second_NHWC)
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x * mean_x
    variance_y = _blur(y * y) - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    numerator = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    denominator = (mean_x.square() + mean_y.square() + C1) * (variance_x + variance_y + C2)
    return (numerator / denominator).mean().item()


def mean_absolute_error(first_NHWC: Tensor, second_NHWC: Tensor) -> float:
    """Return the mean absolute difference of two sets of uint8 images, on the scale of [-1, 1]."""
    return (to_network(first_NHWC) - to_network(second_NHWC)).abs().mean().item()


def _blur(image: Tensor) -> Tensor:
    places = torch.arange(WINDOW) - WINDOW // 2
    line = torch.exp(-places.square() / (2 * SIGMA**2))
    line = line / line.sum()
    return F.conv2d(F.conv2d(image, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))
