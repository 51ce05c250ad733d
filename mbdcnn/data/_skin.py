"""Skin under a dermatoscope: tone, mottling, furrows and light."""

from __future__ import annotations

import numpy as np

from mbdcnn.data._fields import Array, Shape, clouds, grain, grid, net

# From very fair to dark skin, RGB in [0, 1] as a dermatoscope's white light shows it.
_TONES = np.array(
    [[0.93, 0.81, 0.78], [0.90, 0.75, 0.68], [0.83, 0.66, 0.56], [0.72, 0.54, 0.43], [0.56, 0.40, 0.31]],
    dtype=np.float32,
)
# How strongly the two pigments of skin absorb red, green and blue light (Beer-Lambert, in natural-log units).
MELANIN = np.array([0.62, 0.95, 1.40], dtype=np.float32)
BLOOD = np.array([0.10, 0.85, 0.70], dtype=np.float32)


def absorb(picture: Array, amount: Array, pigment: Array) -> Array:
    """Darken a `(H, W, 3)` picture by `amount` `(H, W)` of a pigment `(3,)`."""
    return picture * np.exp(-amount[..., None] * pigment)


def blend(picture: Array, alpha: Array, colour: Array | tuple[float, float, float]) -> Array:
    """Lay a colour over a `(H, W, 3)` picture with opacity `alpha` `(H, W)`."""
    weight = alpha[..., None]
    return picture * (1 - weight) + weight * np.asarray(colour, dtype=np.float32)


def draw_skin(rng: np.random.Generator, shape: Shape) -> Array:
    """Draw lesion-free skin.

    Args:
        rng: source of randomness.
        shape: `(H, W)`.

    Returns:
        `(H, W, 3)` float32, about [0, 1].
    """
    position = 3.99 * rng.beta(1.2, 2.0)
    low, part = int(position), np.float32(position % 1)
    tone = _TONES[low] * (1 - part) + _TONES[low + 1] * part
    skin = np.broadcast_to(tone, (*shape, 3)).astype(np.float32)
    unit = min(shape) / 225  # structures keep their size relative to the frame

    mottling = rng.uniform(0.01, 0.04) * clouds(rng, shape, 110 * unit)
    flush = rng.normal(0.04, 0.05) + rng.uniform(0.005, 0.045) * clouds(rng, shape, 60 * unit, 1.5)
    furrows = net(grain(rng, shape, rng.uniform(9, 15) * unit, 0.3), 0.35)
    pores = np.maximum(grain(rng, shape, 4.5 * unit, 0.3) - 1.4, 0)
    skin = absorb(skin, mottling + rng.uniform(0.01, 0.05) * furrows + rng.uniform(0, 0.06) * pores, MELANIN)
    return absorb(skin, flush, BLOOD)


def light(rng: np.random.Generator, picture: Array) -> Array:
    """Light the scene: a gradient, a fall-off to the corners and the camera's own white balance.

    Args:
        rng: source of randomness.
        picture: `(H, W, 3)` reflectance.

    Returns:
        `(H, W, 3)` float32, about [0, 1].
    """
    height, width = picture.shape[:2]
    y, x = grid((height, width))
    v, u = (y - height / 2) / height, (x - width / 2) / height
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(0, 0.22) * (np.cos(angle) * u + np.sin(angle) * v)
    falloff = rng.uniform(0.05, 0.40) * (u**2 + v**2)
    exposure = rng.uniform(0.90, 1.06)
    # Older cameras under LED rings lean to blue; most are neutral.
    lean = rng.uniform(0.15, 0.30) if rng.random() < 0.2 else rng.normal(0, 0.03)
    balance = np.array([1 - lean, 1 - 0.2 * lean, 1 + 0.8 * lean], dtype=np.float32)
    return picture * (exposure * (1 + slope - falloff))[..., None] * balance
