"""Checkerboard artefacts: spectral energy at the periods of strided and transposed convolutions."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.scores.similarity import luminance

PERIODS = (4, 2)
"""Periods in pixels; a generator has two strides of 2."""


def checkerboard_energy(pixels_NHWC: Tensor) -> float:
    """Return the mean spectral energy of uint8 photos at the periods of 4 and 2 pixels, horizontally and vertically.

    The power spectrum of the luminance under a Hann window, averaged over all places where both frequencies are a
    multiple of a quarter cycle a pixel and not both zero, and over their direct neighbours, which is as far as the
    window spreads a pure wave. Only the ratio between two sets of photos of the same size is meaningful.
    """
    images = luminance(pixels_NHWC)[:, 0]
    height, width = (side // max(PERIODS) * max(PERIODS) for side in images.shape[1:])
    images = images[:, :height, :width]
    window = torch.hann_window(height)[:, None] * torch.hann_window(width)
    spectrum = torch.fft.fft2((images - images.mean(dim=(1, 2), keepdim=True)) * window)
    power = spectrum.abs().square().mean(dim=0) / (height * width)
    return float(power[_at_periods(height, width)].mean())


def _at_periods(height: int, width: int) -> Tensor:
    """Return a mask of these frequencies in a spectrum of [height, width]."""
    marked = torch.zeros(height, width, dtype=torch.bool)
    step_y, step_x = height // max(PERIODS), width // max(PERIODS)
    for row in range(max(PERIODS)):
        for column in range(max(PERIODS)):
            if (row, column) != (0, 0):
                rows = torch.arange(row * step_y - 1, row * step_y + 2) % height
                columns = torch.arange(column * step_x - 1, column * step_x + 2) % width
                marked[rows[:, None], columns] = True
    return marked
