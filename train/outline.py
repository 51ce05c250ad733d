"""A picture with a lesion's outline, as one panel of a sheet."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from mbdcnn.preprocessing import MASK_THRESHOLD

INK, TRUTH = "#1e293b", "#22d3ee"


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
    if lesion is None or not lesion.min() <= MASK_THRESHOLD < lesion.max():
        return
    # The dark line underneath keeps the bright one visible on light skin.
    axes.contour(lesion, [MASK_THRESHOLD], colors="black", linewidths=3, alpha=0.5)
    axes.contour(lesion, [MASK_THRESHOLD], colors=TRUTH, linewidths=1.6)
