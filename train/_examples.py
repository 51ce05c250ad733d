"""A few validation examples as one picture: what is true, and what the network made of it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from train.outline import FOUND, INK, TRUTH, draw_panel, outline

_SIDE, _DPI = 2.6, 100  # inches of a panel, pixels an inch
_TITLE, _LINE = 36, 0.18  # characters that fit above a panel, inches of a further line of them


def draw_examples(
    pictures: np.ndarray, truth: np.ndarray | None, found: np.ndarray | None, titles: Sequence[str]
) -> np.ndarray:
    """Draw examples side by side.

    Args:
        pictures: `(B, S, S, 3)` uint8 RGB, B at least 1.
        truth: `(B, S, S)` true masks in [0, 1], None without.
        found: `(B, S, S)` the network's masks or probabilities in [0, 1], None without.
        titles: one above each picture; none at all for no titles.

    Returns:
        `(H, W, 3)` uint8 RGB.
    """
    count = len(pictures)
    lines_of = [textwrap.wrap(title, _TITLE) for title in titles]
    further = max([1, *map(len, lines_of)]) - 1
    height = _SIDE + (0.3 if titles else 0) + 0.3 + _LINE * further
    figure = Figure(figsize=(count * (_SIDE + 0.1), height), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for index, axes in enumerate(np.atleast_1d(figure.subplots(1, count))):
        title = "\n".join(lines_of[index]) if titles else ""
        draw_panel(axes, title, pictures[index], None if truth is None else truth[index])
        if found is not None:
            outline(axes, found[index], FOUND, dashed=True)
    lines = [] if truth is None else [Line2D([], [], color=TRUTH, label="true")]
    lines += [] if found is None else [Line2D([], [], color=FOUND, linestyle="--", label="found by the network")]
    if lines:
        figure.legend(
            handles=lines, loc="outside lower left", ncols=2, frameon=False, fontsize=9, labelcolor=INK, borderpad=0
        )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
