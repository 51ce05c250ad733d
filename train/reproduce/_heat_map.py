"""The picture of a grid: a heat map over both settings."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from train.reproduce._document import Document, Row, grid_of, measure_name, percent
from train.reproduce._plot_style import (
    INK,
    OURS,
    SOFT,
    caption,
    ours_words,
    sheet,
)


def grid_figure(document: Document) -> Figure:
    """Draw a heat map per measure over both keys of x, the paper's optimum outlined and our best in bold."""
    measures, optimum = document.measures, document.get("optimum")
    (down, ups), (across, acrosses) = grid_of(document.rows)
    width, height = 1.15 * len(acrosses) + 1.6, 0.72 * len(ups) + 1.2
    figure = sheet(max(width * len(measures), 7.5), height + 1.2)
    for position, measure in enumerate(measures, start=1):
        axes = figure.add_subplot(1, len(measures), position)
        cells = {(row.x[down], row.x[across]): row for row in document.rows}
        means = [[_mean_at(cells.get((u, a)), measure) for a in acrosses] for u in ups]
        plane = np.ma.masked_invalid(np.array(means, dtype=float) * 100)
        axes.imshow(plane, cmap="YlGnBu", aspect="auto")
        axes.set_facecolor("#f1f5f9")
        best, middle = (plane.max(), plane.min() + 0.6 * np.ptp(plane)) if plane.count() else (np.nan, np.nan)
        for i, u in enumerate(ups):
            for j, a in enumerate(acrosses):
                row, value = cells.get((u, a)), means[i][j]
                text = percent(value, row.std(measure) if row else None)
                # The map's dark half needs light letters.
                colour = SOFT if value is None else "white" if 100 * value > middle else INK
                weight = "bold" if value is not None and 100 * value == best else "normal"
                axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=10, fontweight=weight)
                if optimum and optimum == {down: u, across: a}:
                    axes.add_patch(Rectangle((j - 0.48, i - 0.47), 0.96, 0.94, fill=False, edgecolor=OURS, lw=3))
        axes.set_xticks(range(len(acrosses)), [f"{a:g}" for a in acrosses])
        axes.set_yticks(range(len(ups)), [f"{u:g}" for u in ups])
        axes.set(xlabel=across, ylabel=down)
        axes.tick_params(colors=INK, labelsize=9.5, length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(f"{measure_name(measure)}, %", loc="left", fontsize=11, color=INK, fontweight="bold")
    keys: list[Patch] = [Patch(facecolor="#41b6c4", label=ours_words(document) + "; bold: the best")]
    if optimum:
        keys.append(Patch(fill=False, edgecolor=OURS, linewidth=2.5, label="the paper's optimum"))
    caption(figure, document, keys)
    return figure


def _mean_at(row: Row | None, measure: str) -> float | None:
    return None if row is None else row.mean(measure)
