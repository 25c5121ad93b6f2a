"""Types of NumPy arrays in the codecs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Samples of 8 bits: [H, W, C], or [H, W] without a dimension for channels."""
