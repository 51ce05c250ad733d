"""What is drawn for each training sample: a crop and an affine matrix, shared by image and masks, and a colour change.

The geometry is the paper's; it leaves the colours alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mbdcnn.config import AugmentationConfig


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of one augmented sample come from.

    Attributes:
        crop_start: `(2,)` float32, top and left of the central crop as fractions of the image.
        crop_end: `(2,)` float32, bottom and right.
        matrix: `(2, 3)` float32, from output to input coordinates (x, y) of the resized crop, in pixels.
    """

    crop_start: np.ndarray
    crop_end: np.ndarray
    matrix: np.ndarray


def draw_geometry(config: AugmentationConfig, image_size: int, rng: np.random.Generator) -> Geometry:
    """Draw one sample's geometry.

    Args:
        config: ranges.
        image_size: side of the network input, in pixels.
        rng: source of randomness; every draw is made whatever the settings, so that a changed range never shifts
            the others.

    Returns:
        Central crop, then rotation, shear, zoom, shift and flips about the image's centre.
    """
    u = rng.random(10)
    fraction = config.crop_min + (1 - config.crop_min) * u[1] if u[0] < config.crop_probability else 1.0
    angle = np.deg2rad(config.rotation_deg) * (2 * u[2] - 1)
    shear_x, shear_y = config.shear_rad * (2 * u[3:5] - 1)
    shift = config.shift_px * (2 * u[5:7] - 1)
    zoom = config.zoom_min + (config.zoom_max - config.zoom_min) * u[7]
    flip = np.where(u[8:10] < [config.horizontal_flip, config.vertical_flip], -1.0, 1.0)

    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shear = np.array([[1, np.tan(shear_x)], [np.tan(shear_y), 1]])
    forward = zoom * rotation @ shear @ np.diag(flip)
    inverse = np.linalg.inv(forward)
    # DALI puts pixel centres at half integers, so the centre of an image of side S is S / 2
    centre = np.full(2, image_size / 2)
    offset = centre - inverse @ (centre + shift)
    start = np.full(2, (1 - fraction) / 2, np.float32)
    return Geometry(start, 1 - start, np.column_stack([inverse, offset]).astype(np.float32))


def draw_colour(config: AugmentationConfig, rng: np.random.Generator) -> np.ndarray:
    """Draw one sample's change of colour.

    Args:
        config: ranges.
        rng: source of randomness, another one than the geometry's.

    Returns:
        `(4,)` float32: factors of brightness, contrast and saturation, and the hue's turn in degrees.
    """
    ranges = np.array([config.brightness, config.contrast, config.saturation, config.hue_deg])
    return (np.array([1, 1, 1, 0]) + ranges * (2 * rng.random(4) - 1)).astype(np.float32)


def upright() -> Geometry:
    """The whole frame, unchanged."""
    return Geometry(np.zeros(2, np.float32), np.ones(2, np.float32), np.eye(2, 3, dtype=np.float32))
