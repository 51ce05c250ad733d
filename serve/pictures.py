"""A prediction as pictures: the lesion mask, the activation map in colours, and both over the image."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageFilter

_LONGEST_SIDE = 1600  # of pictures that are only looked at; masks keep the image's own size
_COLOURS = "inferno"
_TINT = 0.5


def cam_picture(cam: np.ndarray, height: int, width: int) -> Image.Image:
    """The class activation map in colours, from black (0) over red to pale yellow (1).

    Args:
        cam: `(h, w)` float32 in [0, 1].
        height: of the image as displayed, in pixels; sides above 1,600 are scaled down.
        width: of the image.
    """
    return Image.fromarray(_coloured(_enlarged(cam, *_shown_size(height, width))))


def overlay_picture(image: np.ndarray, mask: np.ndarray, cam: np.ndarray) -> Image.Image:
    """The image, tinted by the activation map, with the lesion's border as a light line between dark ones.

    Args:
        image: `(H, W, 3)` uint8 RGB.
        mask: `(H, W)` uint8, above 0 on the lesion.
        cam: `(h, w)` float32 in [0, 1].
    """
    height, width = _shown_size(*image.shape[:2])
    shown = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR), dtype=np.float32)
    evidence = _enlarged(cam, height, width)
    # opacity follows the evidence, so that skin without any stays as it is
    opacity = (_TINT * evidence)[..., None]
    mixed = shown * (1 - opacity) + _coloured(evidence) * opacity
    lesion = Image.fromarray(np.where(mask > 0, np.uint8(255), np.uint8(0))).resize(
        (width, height), Image.Resampling.NEAREST
    )
    line = max(1, round(max(height, width) / 400))
    mixed[_border(lesion, 2 * line)] = (0, 0, 0)
    mixed[_border(lesion, line)] = (64, 255, 224)  # a colour that neither skin nor the tint has
    return Image.fromarray(mixed.round().astype(np.uint8))


def _shown_size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, _LONGEST_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _enlarged(cam: np.ndarray, height: int, width: int) -> np.ndarray:
    plane = Image.fromarray(np.ascontiguousarray(cam, dtype=np.float32))
    return np.asarray(plane.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)


def _coloured(values: np.ndarray) -> np.ndarray:
    return (colormaps[_COLOURS](values)[..., :3] * 255).round().astype(np.uint8)


def _border(lesion: Image.Image, reach: int) -> np.ndarray:
    """Pixels within `reach` of the lesion's border, to either side."""
    size = 2 * reach + 1
    grown, shrunk = lesion.filter(ImageFilter.MaxFilter(size)), lesion.filter(ImageFilter.MinFilter(size))
    return np.asarray(grown) != np.asarray(shrunk)
