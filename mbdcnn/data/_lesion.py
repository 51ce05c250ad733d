"""Pigmented lesions: outlines, and how each diagnosis looks inside its outline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mbdcnn.data._fields import Array, Shape, clouds, discs, grain, grid, net, step
from mbdcnn.data._skin import BLOOD, MELANIN, absorb, blend


@dataclass(frozen=True)
class Outline:
    """Where a lesion is.

    Attributes:
        depth: `(H, W)` how far inside the border a pixel lies, in units of `radius`; zero on the border.
        radius: mean radius in pixels.
        v: `(H, W)` row offset from the centre, in units of `radius`.
        u: `(H, W)` column offset from the centre, in units of `radius`.
        angle: `(H, W)` direction from the centre, in radians.
    """

    depth: Array
    radius: float
    v: Array
    u: Array
    angle: Array

    @property
    def mask(self) -> Array:
        """`(H, W)` bool, true inside the border."""
        return self.depth > 0

    @property
    def shape(self) -> Shape:
        """`(H, W)`."""
        return self.depth.shape[0], self.depth.shape[1]


def _outline(
    rng: np.random.Generator,
    shape: Shape,
    *,
    size: tuple[float, float],
    aspect: float,
    radial: Callable[[Array], Array],
    ripple: float,
    grain_size: float,
) -> Outline:
    """Cut an outline from an ellipse.

    Args:
        rng: source of randomness.
        shape: `(H, W)`.
        size: smallest and largest mean radius, as a fraction of the height.
        aspect: length over breadth.
        radial: relative radius as a function of direction, about 1.
        ripple: how far the border is displaced at random, as a fraction of the radius.
        grain_size: size of those displacements, as a fraction of the radius.
    """
    height, width = shape
    radius = rng.uniform(*size) * height
    cy, cx = height * (0.5 + rng.uniform(-0.07, 0.07)), width * (0.5 + rng.uniform(-0.09, 0.09))
    y, x = grid(shape)
    v, u = (y - cy) / radius, (x - cx) / radius
    # Displacing the coordinates, unlike adding noise to the border, cannot tear islands off.
    wavelength = grain_size * radius
    wv = v + ripple * grain(rng, shape, wavelength, 0.4)
    wu = u + ripple * grain(rng, shape, wavelength, 0.4)
    turn = rng.uniform(0, np.pi)
    major = (np.cos(turn) * wu + np.sin(turn) * wv) / np.sqrt(aspect)
    minor = (-np.sin(turn) * wu + np.cos(turn) * wv) * np.sqrt(aspect)
    angle = np.arctan2(minor, major)
    depth = radial(angle) - np.hypot(major, minor)
    return Outline(depth.astype(np.float32), radius, v, u, angle)


def _waves(rng: np.random.Generator, orders: range, strength: float, fall: float) -> Callable[[Array], Array]:
    """A random smooth function of direction around 1."""
    amplitude = [strength * rng.normal() / k**fall for k in orders]
    phase = rng.uniform(0, 2 * np.pi, len(amplitude))

    def radial(angle: Array) -> Array:
        total = np.ones_like(angle)
        for k, a, p in zip(orders, amplitude, phase, strict=True):
            total += np.float32(a) * np.cos(k * angle + np.float32(p))
        return np.maximum(total, 0.35)

    return radial


def _bumps(angle: Array, centre: float, width: float) -> Array:
    """A bump of height 1 at a direction."""
    return np.exp((np.cos(angle - centre) - 1) / width**2)


def draw_nevus(rng: np.random.Generator, skin: Array) -> tuple[Array, Array]:
    """Draw a nevus: round and symmetric, evenly brown, with a net or globules and a soft, regular border.

    Args:
        rng: source of randomness.
        skin: `(H, W, 3)` in [0, 1].

    Returns:
        The picture `(H, W, 3)` and the lesion mask `(H, W)` bool.
    """
    shape = skin.shape[0], skin.shape[1]
    o = _outline(
        rng, shape, size=(0.15, 0.33), aspect=rng.uniform(1.0, 1.45), ripple=rng.uniform(0.012, 0.03),
        grain_size=0.5, radial=_waves(rng, range(2, 6), 0.09, 0.9),
    )  # fmt: skip
    cover = step(o.depth, rng.uniform(0.05, 0.13))
    base = rng.uniform(0.45, 0.75) if rng.random() < 0.2 else rng.uniform(0.7, 1.5)
    middle = np.clip(o.depth, 0, 1)
    lean = rng.choice([0.35, 0.7, -0.25])  # darker in the middle, or in some a paler middle
    amount = base * (0.75 + lean * middle + rng.uniform(0.05, 0.16) * clouds(rng, shape, 0.7 * o.radius))
    pattern = rng.choice(["net", "globules", "even"])
    if pattern == "net":
        lines = net(grain(rng, shape, max(0.13 * o.radius, 4.5), 0.18), 0.5)
        amount = amount + base * rng.uniform(0.25, 0.5) * (lines - 0.4) * (1 - 0.6 * middle)
    elif pattern == "globules":
        dots = step(grain(rng, shape, max(0.17 * o.radius, 5.0), 0.3) - 1.0, 0.4)
        amount = amount + base * rng.uniform(0.3, 0.6) * (dots - 0.15)
    picture = absorb(skin, cover * np.maximum(amount, 0.2), MELANIN)
    return absorb(picture, cover * rng.uniform(0.0, 0.3), BLOOD), o.mask


def draw_melanoma(rng: np.random.Generator, skin: Array) -> tuple[Array, Array]:
    """Draw a melanoma: asymmetric, its border notched and uneven, in brown, black, red, blue-grey and white.

    Args:
        rng: source of randomness.
        skin: `(H, W, 3)` in [0, 1].

    Returns:
        The picture `(H, W, 3)` and the lesion mask `(H, W)` bool.
    """
    shape = skin.shape[0], skin.shape[1]
    waves = _waves(rng, range(1, 8), 0.16, 0.8)
    notches = rng.uniform((-np.pi, 0.10, 0.12), (np.pi, 0.25, 0.35), (3, 3))
    horns = rng.uniform((-np.pi, 0.07, 0.08), (np.pi, 0.16, 0.26), (3, 3))

    def radial(angle: Array) -> Array:
        total = waves(angle)
        for centre, width, cut in notches:
            total = total - cut * _bumps(angle, centre, width)
        for centre, width, gain in horns:
            total = total + gain * _bumps(angle, centre, width)
        return np.maximum(total, 0.3)

    o = _outline(
        rng, shape, size=(0.19, 0.35), aspect=rng.uniform(1.0, 1.5), ripple=rng.uniform(0.02, 0.04),
        grain_size=rng.uniform(0.35, 0.55), radial=radial,
    )  # fmt: skip
    abrupt = _bumps(o.angle, rng.uniform(-np.pi, np.pi), 0.9)
    cover = step(o.depth, 0.13 - 0.10 * abrupt)
    base = rng.uniform(0.55, 0.8) if rng.random() < 0.2 else rng.uniform(0.8, 1.6)

    # The heart of the lesion lies off its middle, which makes the colours as asymmetric as the border.
    away, offset = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.55)
    squared = (o.v - offset * np.sin(away)) ** 2 + (o.u - offset * np.cos(away)) ** 2
    heart = np.exp(-squared / rng.uniform(0.15, 0.4))
    patches = clouds(rng, shape, 0.8 * o.radius, 2.0)
    amount = base * (0.7 + rng.uniform(0.12, 0.28) * patches + rng.uniform(0.4, 1.0) * heart)
    lines = net(grain(rng, shape, max(0.20 * o.radius, 5.0), 0.5), 0.5)
    amount = amount + base * rng.uniform(0.05, 0.3) * (lines - 0.4) * (1 - heart)
    blotches = step(clouds(rng, shape, 0.7 * o.radius, 2.2) + 1.2 * heart - rng.uniform(1.2, 2.2), 0.5)
    amount = amount + rng.uniform(0.6, 1.3) * blotches
    picture = absorb(skin, cover * np.maximum(amount, 0.12), MELANIN)

    inside = cover * np.clip(o.depth / 0.15, 0, 1)
    red = step(clouds(rng, shape, 1.1 * o.radius, 2.0) - rng.uniform(0.5, 1.8), 0.8)
    picture = absorb(picture, inside * red * rng.uniform(0.2, 0.8), BLOOD)
    veil = step(clouds(rng, shape, 1.1 * o.radius, 2.4) + 0.9 * heart - rng.uniform(0.8, 2.0), 0.8)
    picture = blend(picture, inside * veil * rng.uniform(0.25, 0.6), (0.38, 0.40, 0.48))
    if rng.random() < 0.35:  # regression: scar-like pale islands
        scar = step(clouds(rng, shape, 0.9 * o.radius, 2.2) - 1.1, 0.6)
        picture = blend(picture, inside * scar * rng.uniform(0.25, 0.55), skin.mean(axis=(0, 1)) * 1.02)
    return picture, o.mask


def draw_keratosis(rng: np.random.Generator, skin: Array) -> tuple[Array, Array]:
    """Draw a seborrheic keratosis: sharp-edged and stuck on, waxy, with furrows, pale cysts and dark plugs.

    Args:
        rng: source of randomness.
        skin: `(H, W, 3)` in [0, 1].

    Returns:
        The picture `(H, W, 3)` and the lesion mask `(H, W)` bool.
    """
    shape = skin.shape[0], skin.shape[1]
    waves = _waves(rng, range(2, 7), 0.09, 0.8)
    lobes, phase, depth = rng.integers(7, 15), rng.uniform(0, 2 * np.pi), rng.uniform(0.02, 0.06)

    def radial(angle: Array) -> Array:
        return waves(angle) + depth * (np.abs(np.cos(lobes * angle / 2 + phase)) - 0.64)

    o = _outline(
        rng, shape, size=(0.17, 0.35), aspect=rng.uniform(1.0, 1.6), ripple=rng.uniform(0.006, 0.016),
        grain_size=0.35, radial=radial,
    )  # fmt: skip
    cover = step(o.depth, rng.uniform(0.02, 0.05))
    base = rng.uniform(0.3, 0.5) if rng.random() < 0.2 else rng.uniform(0.5, 1.35)
    amount = base * (0.9 + 0.16 * clouds(rng, shape, 0.5 * o.radius))

    # Gyri and furrows, like a brain's surface; the others are granular, and lead by their cysts and plugs.
    brain = rng.random() < 0.5
    folds = grain(rng, shape, rng.uniform(0.22, 0.40) * o.radius, 0.28 if brain else 0.6)
    furrows = net(folds, rng.uniform(0.2, 0.4))
    amount = amount + base * (rng.uniform(0.2, 0.55) if brain else rng.uniform(0.05, 0.2)) * (furrows - 0.3)
    amount = amount + base * rng.uniform(0.05, 0.16) * clouds(rng, shape, 0.12 * o.radius, 1.2)
    picture = absorb(skin, cover * np.maximum(amount, 0.12), MELANIN)
    wax = rng.uniform(0.08, 0.32)
    tint = np.array([0.66, 0.58, 0.45]) if rng.random() < 0.6 else np.array([0.56, 0.54, 0.53])
    picture = blend(picture, cover * wax * (1 - 0.6 * furrows), tint)

    # The plaque stands proud of the skin: slopes facing the light are brighter, the others darker.
    gyri = (0.05 if brain else 0.02) * np.minimum(np.abs(folds), 1.5)
    slope_v, slope_u = np.gradient(np.clip(o.depth / 0.2, 0, 1) ** 0.7 + gyri * cover)
    relief = np.tanh(0.25 * o.radius * (slope_v + slope_u))
    picture = picture * (1 + rng.uniform(0.07, 0.21) * relief)[..., None]

    cysts = _scatter(rng, o, rng.integers(1, 8) if brain else rng.integers(6, 26), (0.015, 0.045), 0.6)
    picture = blend(picture, rng.uniform(0.4, 0.8) * cysts, (0.92, 0.88, 0.78))
    plugs = _scatter(rng, o, rng.integers(0, 6) if brain else rng.integers(2, 14), (0.02, 0.06), 0.4)
    return blend(picture, rng.uniform(0.5, 0.85) * plugs, (0.20, 0.13, 0.09)), o.mask


def _scatter(rng: np.random.Generator, o: Outline, count: int, size: tuple[float, float], blur: float) -> Array:
    """Discs at random places well inside an outline; sizes are fractions of its radius."""
    rows, columns = np.nonzero(o.depth > 0.1)
    if not len(rows):
        return np.zeros(o.shape, dtype=np.float32)
    chosen = rng.integers(0, len(rows), count)
    centres = np.stack([rows[chosen], columns[chosen]], axis=1)
    return discs(o.shape, centres, rng.uniform(*size, count) * o.radius, blur)


DRAW: dict[str, Callable[[np.random.Generator, Array], tuple[Array, Array]]] = {
    "nevus": draw_nevus,
    "melanoma": draw_melanoma,
    "seborrheic_keratosis": draw_keratosis,
}
