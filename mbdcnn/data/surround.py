"""The dark surround of a dermatoscope's round field."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_propagation

_BRIGHT = 0.9  # quantile of the grey levels: skin, whatever share of the picture the lesion and the surround take
_DARK = 0.35  # of that: a surround's light at most


def dark_surround(grey: np.ndarray) -> np.ndarray:
    """Where it is dark from the corners inwards: `(H, W)` bool of `(H, W)` grey levels."""
    dark = grey < _DARK * np.quantile(grey, _BRIGHT)
    corners = np.zeros_like(dark)
    corners[:: len(dark) - 1, :: dark.shape[1] - 1] = True
    return binary_propagation(corners & dark, mask=dark)
