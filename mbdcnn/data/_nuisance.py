"""What lies over the skin in real pictures: hair, gel bubbles, rulers and the dermatoscope's dark rim.

None of it looks at the lesion or its class, so that no network can learn the class from it.
"""

from __future__ import annotations

import numpy as np

from mbdcnn.data._fields import Array, Strokes, grid, step
from mbdcnn.data._skin import blend


def add_nuisance(rng: np.random.Generator, picture: Array) -> Array:
    """Draw nuisances over a picture, each with a chance of its own.

    Args:
        rng: source of randomness.
        picture: `(H, W, 3)` in [0, 1].

    Returns:
        `(H, W, 3)`.
    """
    chances = rng.random(4)
    if chances[0] < 0.55:
        picture = _hair(rng, picture)
    if chances[1] < 0.25:
        picture = _bubbles(rng, picture)
    if chances[2] < 0.18:
        picture = _ruler(rng, picture)
    if chances[3] < 0.28:
        picture = _rim(rng, picture)
    return picture


def _hair(rng: np.random.Generator, picture: Array) -> Array:
    height, width = picture.shape[:2]
    hairs = Strokes((height, width))
    count = rng.integers(12, 32) if rng.random() < 0.25 else rng.integers(1, 9)
    lie = rng.uniform(0, np.pi)  # hairs of one place grow roughly one way
    t = np.linspace(0, 1, 24)[:, None]
    for _ in range(count):
        angle = rng.normal(lie, 0.45)
        along = np.array([np.sin(angle), np.cos(angle)])
        middle = rng.uniform(0, 1, 2) * (height, width)
        reach = rng.uniform(0.15, 0.6) * height
        bend = rng.normal(0, 0.22, 2) * reach
        ends = middle - along * reach, middle + along * reach
        curve = (1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * (middle + bend) + t**2 * ends[1]
        hairs.line(curve, rng.uniform(0.5, 1.6) * height / 250, rng.uniform(0.5, 0.95))
    plane = hairs.plane()
    shadow = np.roll(plane, (1, 1), axis=(0, 1))
    dark = np.array([0.16, 0.10, 0.08]) * rng.uniform(0.5, 1.6)
    colour = (0.80, 0.72, 0.62) if rng.random() < 0.15 else tuple(dark)
    return blend(picture * (1 - 0.15 * shadow[..., None]), plane, colour)


def _bubbles(rng: np.random.Generator, picture: Array) -> Array:
    height, width = picture.shape[:2]
    y, x = grid((height, width))
    for _ in range(rng.integers(2, 9)):
        cy, cx = rng.uniform(0, 1, 2) * (height, width)
        radius = rng.uniform(0.012, 0.05) * height
        distance = np.hypot(y - cy, x - cx)
        ring = np.exp(-(((distance - radius) / (0.10 * radius + 0.5)) ** 2))
        # Lit from the upper left: the rim is bright there and dark on the far side, with one glint inside.
        side = ((cx - x) + (cy - y)) / (1.42 * np.maximum(distance, 1))
        off_glint = np.hypot(y - cy + 0.4 * radius, x - cx + 0.4 * radius)
        glint = np.exp(-((off_glint / (0.18 * radius + 0.4)) ** 2))
        lit = 0.16 * ring * side + 0.06 * step(radius - distance, 1.0) + 0.55 * glint
        picture = picture + (lit * rng.uniform(0.7, 1.1))[..., None]
    return picture


def _ruler(rng: np.random.Generator, picture: Array) -> Array:
    height, width = picture.shape[:2]
    marks = Strokes((height, width))
    tilt = rng.normal(0, 0.12) + (np.pi / 2 if rng.random() < 0.3 else 0)
    along = np.array([np.sin(tilt), np.cos(tilt)])
    across = np.array([along[1], -along[0]])
    depth = rng.uniform(0.03, 0.12) * (1 if rng.random() < 0.5 else -1)
    centre = np.array([height, width]) / 2
    edge = abs(across) @ centre
    start = centre + across * np.sign(depth) * (edge - abs(depth) * height)
    gap = rng.uniform(0.018, 0.034) * height
    thin = max(0.8, 0.0035 * height)
    count = rng.integers(15, 32)
    for tick in range(-count // 2, count // 2 + 1):
        foot = start + along * tick * gap
        length = gap * (2.0 if tick % 10 == 0 else 1.5 if tick % 5 == 0 else 0.9)
        marks.line(np.stack([foot, foot - across * np.sign(depth) * length]), thin)
    reach = along * gap * (count // 2)
    marks.line(np.stack([start - reach, start + reach]), thin)
    ink = (0.12, 0.11, 0.14) if rng.random() < 0.8 else (0.25, 0.22, 0.45)
    return blend(picture, 0.85 * marks.plane(), ink)


def _rim(rng: np.random.Generator, picture: Array) -> Array:
    height, width = picture.shape[:2]
    y, x = grid((height, width))
    cy, cx = np.array([height, width]) * rng.normal(0.5, 0.012, 2)
    radius = rng.uniform(0.535, 0.68) * height
    distance = np.hypot(y - cy, x - cx)
    open_part = step(radius - distance, rng.uniform(0.008, 0.05) * height)
    # The field darkens before the rim, and the rim itself is not quite black.
    fade = 1 - 0.35 * np.exp(np.minimum((distance - radius) / (0.06 * height), 0))
    return blend(picture * fade[..., None], 1 - open_part, (0.025, 0.025, 0.03))
