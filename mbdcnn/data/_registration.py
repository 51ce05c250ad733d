"""How well the small structures of two thumbnails match once one is shifted and scaled onto the other."""

from __future__ import annotations

import numpy as np
from scipy import fft
from scipy.ndimage import binary_dilation, gaussian_filter

from mbdcnn.data.surround import dark_surround

SIDE = 64
_CORE = 48  # of one thumbnail is looked for in the other, so that it can shift by 8 pixels to each side
_SCALES = (1.0, 0.95, 1 / 0.95, 0.9, 1 / 0.9)
_COARSEST = 2.0  # pixels: the lesion's outline is larger, and as good as a circle in most pictures
_NEIGHBOURHOOD = 4.0
_NOISE = 2.0  # grey levels
_FADE = 3  # pixels over which a surround's light fades, which tell no more


def detail(thumbnails: np.ndarray) -> np.ndarray:
    """Small structures, each as strong as those around it: faint ones count as much as a lesion's rim.

    They are 0 outside the dermatoscope's field: its round edge is the same in pictures of different lesions.

    Args:
        thumbnails: `(N, 64, 64)` uint8 grey.

    Returns:
        `(N, 64, 64)` float32.
    """
    planes = np.empty(thumbnails.shape, np.float32)
    for row, thumbnail in enumerate(thumbnails):
        plane, field = thumbnail.astype(np.float32), _field(thumbnail)
        plane = field * (plane - _smooth(plane, field, _COARSEST))
        around = np.sqrt(_smooth(plane * plane, field, _NEIGHBOURHOOD))
        planes[row] = plane / (around + _NOISE)
    return planes


def _field(thumbnail: np.ndarray) -> np.ndarray:
    """1 where skin shows, 0 in the dark surround that reaches in from the corners: `(64, 64)` float32."""
    return np.float32(1) - binary_dilation(dark_surround(thumbnail), iterations=_FADE)


def _smooth(plane: np.ndarray, field: np.ndarray, width: float) -> np.ndarray:
    """Gaussian mean over the field alone, so that its edge leaves no trace; `width` is in pixels."""
    weight = gaussian_filter(field, width, mode="nearest")
    return gaussian_filter(plane * field, width, mode="nearest") / np.maximum(weight, 1e-3)


def likeness(details: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The best normalised correlation of the middle of one plane, at five scales, with a part of the other.

    Args:
        details: `(N, 64, 64)` float32, as `detail` gives them.
        others: the same, of the pictures to compare with.

    Returns:
        `(N,)` in [-1, 1].
    """
    shape, last = (SIDE, SIDE), SIDE - _CORE + 1
    spectrum = fft.rfft2(others, shape)
    window = np.conj(fft.rfft2(np.ones((_CORE, _CORE), np.float32), shape))
    total = fft.irfft2(spectrum * window, shape)[:, :last, :last]
    energy = fft.irfft2(fft.rfft2(others * others, shape) * window, shape)[:, :last, :last]
    deviation = np.sqrt(np.maximum(energy - total * total / _CORE**2, 1e-3))
    best = np.full(len(details), -1.0, np.float32)
    for scale in _SCALES:
        core = _core(details, scale)
        matched = fft.irfft2(spectrum * np.conj(fft.rfft2(core, shape)), shape)[:, :last, :last]
        np.maximum(best, (matched / deviation).max(axis=(1, 2)), out=best)
    return best


def _core(details: np.ndarray, scale: float) -> np.ndarray:
    """The middle of each plane, magnified, with mean 0 and length 1: `(N, 48, 48)`."""
    at = (SIDE - 1) / 2 + (np.arange(_CORE) - (_CORE - 1) / 2) / scale
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(SIDE))).astype(np.float32)  # linear interpolation
    core = weights @ details @ weights.T
    core = core - core.mean(axis=(1, 2), keepdims=True)
    return core / np.sqrt((core * core).sum(axis=(1, 2), keepdims=True) + 1e-6)
