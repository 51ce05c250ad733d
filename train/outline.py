"""A picture with lesions' outlines, as one panel of a sheet."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from mbdcnn.preprocessing import MASK_THRESHOLD, Preprocessing

INK, TRUTH, FOUND = "#1e293b", "#22d3ee", "#ff8a1f"


def draw_panel(axes: Axes, title: str, picture: np.ndarray, lesion: np.ndarray | None) -> None:
    """Draw a picture.

    Args:
        axes: to draw into.
        title: above the picture.
        picture: `(H, W, 3)` uint8 RGB.
        lesion: `(H, W)` in [0, 1], outlined at one half; None for no outline.
    """
    axes.imshow(picture)
    axes.set_axis_off()
    axes.set_title(title, loc="left", fontsize=9.5, color=INK, pad=4)
    if lesion is not None:
        outline(axes, lesion, TRUTH)


def outline(axes: Axes, lesion: np.ndarray, colour: str, dashed: bool = False) -> None:
    """Draw the line at one half of a lesion `(H, W)` in [0, 1]; nothing where there is no such line."""
    if not lesion.min() <= MASK_THRESHOLD < lesion.max():
        return
    # The dark line underneath keeps the bright one visible on light skin.
    axes.contour(lesion, [MASK_THRESHOLD], colors="black", linewidths=3, alpha=0.5)
    axes.contour(lesion, [MASK_THRESHOLD], colors=colour, linewidths=1.6, linestyles="--" if dashed else "-")


def as_pictures(images: Tensor, spec: Preprocessing) -> np.ndarray:
    """Undo the normalisation: images `(B, 3, S, S)` as networks see them -> `(B, S, S, 3)` uint8 RGB."""
    mean, std = (images.new_tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    return ((images * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
