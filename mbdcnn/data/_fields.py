"""Random fields and coordinates, the raw material of the drawn pictures."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray
Shape = tuple[int, int]


@lru_cache(maxsize=64)
def _wavelength(shape: Shape) -> Array:
    """Wavelength in pixels of every real-FFT coefficient; infinite at the mean."""
    fy = np.fft.fftfreq(shape[0])[:, None]
    fx = np.fft.rfftfreq(shape[1])[None, :]
    with np.errstate(divide="ignore"):
        return 1.0 / np.hypot(fy, fx)


def _filtered(rng: np.random.Generator, shape: Shape, gain: Array) -> Array:
    """White noise through a gain on its spectrum, brought to zero mean and unit deviation."""
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32)) * gain
    spectrum[0, 0] = 0
    plane = np.fft.irfft2(spectrum, s=shape)
    return (plane / (plane.std() + 1e-9)).astype(np.float32)


def clouds(rng: np.random.Generator, shape: Shape, scale: float, roughness: float = 1.8) -> Array:
    """Fractal noise that is flat above a scale.

    Args:
        rng: source of randomness.
        shape: `(H, W)`.
        scale: the largest structures' size in pixels.
        roughness: exponent of the fall towards fine detail; larger is smoother.

    Returns:
        `(H, W)` float32, zero mean, unit deviation.
    """
    detail = np.minimum(_wavelength(shape) / scale, 1.0)
    return _filtered(rng, shape, detail**roughness)


def grain(rng: np.random.Generator, shape: Shape, size: float, width: float = 0.25) -> Array:
    """Noise of one typical size: its zero lines form a net, its peaks form dots.

    Args:
        rng: source of randomness.
        shape: `(H, W)`.
        size: wavelength in pixels.
        width: spread of the wavelength, as a deviation in natural-log units.

    Returns:
        `(H, W)` float32, zero mean, unit deviation.
    """
    with np.errstate(divide="ignore"):
        octave = np.log(np.maximum(_wavelength(shape), 1.0) / max(size, 2.0)) / width
    return _filtered(rng, shape, np.exp(-0.5 * np.minimum(octave, 30.0) ** 2))


def net(field: Array, thickness: float = 0.45) -> Array:
    """Lines where a field crosses zero; `(H, W)` in [0, 1]."""
    return np.exp(-((field / thickness) ** 2))


def step(field: Array, width: Array | float) -> Array:
    """A soft step from 0 to 1 through 0.5 where `field` is zero; `width` is in the field's unit."""
    return 0.5 + 0.5 * np.tanh(field / width)


def grid(shape: Shape) -> tuple[Array, Array]:
    """Row and column coordinates in pixels, each broadcast to `(H, W)` float32."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return y, x


def discs(shape: Shape, centres: Array, radii: Array, blur: float) -> Array:
    """The union of soft discs.

    Args:
        shape: `(H, W)`.
        centres: `(N, 2)` rows and columns in pixels.
        radii: `(N,)` in pixels.
        blur: width of the edge as a fraction of the radius.

    Returns:
        `(H, W)` float32 in [0, 1].
    """
    plane = np.zeros(shape, dtype=np.float32)
    for (cy, cx), radius in zip(centres, radii, strict=True):
        reach = int(radius * (1 + 2 * blur)) + 2
        top, left = max(int(cy) - reach, 0), max(int(cx) - reach, 0)
        part = plane[top : int(cy) + reach + 1, left : int(cx) + reach + 1]
        if not part.size:
            continue
        y, x = grid((part.shape[0], part.shape[1]))
        distance = np.hypot(y + top - cy, x + left - cx)
        np.maximum(part, step(radius - distance, radius * blur + 0.3), out=part)
    return plane


class Strokes:
    """Antialiased lines, drawn at twice the resolution and averaged down."""

    def __init__(self, shape: Shape) -> None:
        """Start empty, for a picture of `(H, W)`."""
        self._shape = shape
        self._image = Image.new("L", (2 * shape[1], 2 * shape[0]))
        self._draw = ImageDraw.Draw(self._image)

    def line(self, points: Array, width: float, strength: float = 1.0) -> None:
        """Draw a polyline: `(N, 2)` rows and columns in pixels, width in pixels, strength in [0, 1]."""
        path = [(float(2 * x), float(2 * y)) for y, x in points]
        self._draw.line(path, fill=int(255 * strength), width=max(round(2 * width), 1), joint="curve")

    def plane(self) -> Array:
        """What was drawn; `(H, W)` float32 in [0, 1]."""
        small = self._image.resize((self._shape[1], self._shape[0]), Image.Resampling.BOX)
        return np.asarray(small, dtype=np.float32) / 255
