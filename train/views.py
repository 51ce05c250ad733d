"""The views of an image that the protocol `authors` merges: turns and flips at three scales, and nine central crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor


class View(NamedTuple):
    """Quarter turns, counter-clockwise, and the axis that is flipped after them (-1 left-right, -2 top-bottom)."""

    turns: int = 0
    flip: int | None = None


VIEWS = (View(), View(turns=1), View(turns=2), View(turns=3), View(flip=-1), View(flip=-2))


def see(maps: Tensor, view: View) -> Tensor:
    """Maps `(..., S, S)` as a view shows them."""
    turned = torch.rot90(maps, view.turns, (-2, -1))
    return turned if view.flip is None else turned.flip(view.flip)


def undo(maps: Tensor, view: View) -> Tensor:
    """The inverse of `see`: maps `(..., S, S)` of a view, back in the image's own frame."""
    turned = maps if view.flip is None else maps.flip(view.flip)
    return torch.rot90(turned, -view.turns, (-2, -1))


def spread(maps: Tensor) -> Tensor:
    """Every view of a batch: `(6 B, C, S, S)` from `(B, C, S, S)`, all images in the first view, then in the next."""
    return torch.cat([see(maps, view) for view in VIEWS])


def gather(maps: Tensor) -> Tensor:
    """Mean over the views of each image, in its own frame: `(B, C, S, S)` from what `spread` gave."""
    parts = maps.chunk(len(VIEWS))
    return torch.stack([undo(part, view) for part, view in zip(parts, VIEWS, strict=True)]).mean(0)


def scales(size: int) -> tuple[int, int, int]:
    """Sides of the network inputs: `size`, 8/7 and 9/7 of it, as multiples of 16 (224, 256 and 288 pixels)."""
    side, larger, largest = (16 * round(size * sevenths / 7 / 16) for sevenths in (7, 8, 9))
    return side, larger, largest


def crops(height: int, width: int) -> tuple[tuple[int, int, int, int], ...]:
    """Frames (left, top, right, bottom) in pixels of nine crops around an image's centre.

    Four keep the image's aspect and have 4/5, 3/5, 2/5 and 1/5 of its sides; four are squares of the same shares of
    its shorter side; the last is the whole image. Sides are rounded down, but never below one pixel.
    """
    short = min(height, width)
    sides = [(height * fifths // 5, width * fifths // 5) for fifths in (4, 3, 2, 1)]
    sides += [(short * fifths // 5, short * fifths // 5) for fifths in (4, 3, 2, 1)]
    frames = []
    for h, w in [*((max(1, h), max(1, w)) for h, w in sides), (height, width)]:
        left, top = (width - w) // 2, (height - h) // 2
        frames.append((left, top, left + w, top + h))
    return tuple(frames)


def merge(
    planes: Sequence[np.ndarray],
    height: int,
    width: int,
    frame: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
) -> np.ndarray:
    """Mean of maps of several scales at another size, each resized with a bicubic filter.

    Args:
        planes: `(s, s)` float32 logits of one image, one of each scale.
        height: of the result, in pixels.
        width: of the result, in pixels.
        frame: (left, top, right, bottom) of the part that is wanted, as shares of the image's sides.

    Returns:
        `(height, width)` float32.
    """
    total = np.zeros((height, width), np.float32)
    for plane in planes:
        side_y, side_x = plane.shape
        box = (frame[0] * side_x, frame[1] * side_y, frame[2] * side_x, frame[3] * side_y)
        picture = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
        total += np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box))
    total /= len(planes)
    return total
