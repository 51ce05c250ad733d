"""The picture of a table: ours beside the paper's, and below them what others published."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from train.reproduce._document import Document, Row, measure_name, percent
from train.reproduce._plot_style import (
    INK,
    NO_SCORE,
    OTHERS,
    OURS,
    PAPER,
    SOFT,
    caption,
    marker,
    note,
    ours_words,
    percent_axis,
    sheet,
    style,
)

_PITCH = 0.62  # inches from one row to the next: room for two labels, one above the other


def table_figure(document: Document) -> Figure:
    """Draw one dot chart per measure: ours, the paper's under it, and below them what others published."""
    measures = document.measures
    columns = min(2, len(measures))
    lists = [(document.rows, _published(document, measure)) for measure in measures]
    heights = [
        max(len(rows) + len(others) for rows, others in lists[start : start + columns])
        for start in range(0, len(lists), columns)
    ]
    figure = sheet(6.8 * columns, sum(_PITCH * rows + 0.85 for rows in heights) + 1.2)
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for position, (measure, (rows, others)) in enumerate(zip(measures, lists, strict=True)):
        axes = figure.add_subplot(grid[divmod(position, columns)])
        _dots(axes, measure, rows, others)
    caption(figure, document, _dot_keys(document))
    return figure


def _published(document: Document, measure: str) -> list[tuple[str, float]]:
    rows = [(row["label"], row["values"].get(measure)) for row in document.get("published") or ()]
    return [(label, value) for label, value in rows if value is not None]


def _dots(axes: Axes, measure: str, rows: Sequence[Row], others: Sequence[tuple[str, float]]) -> None:
    style(axes, "x")
    for y, row in enumerate(rows):
        mean, paper = row.mean(measure), row.paper(measure)
        upper, lower = (y, y) if paper is None else (y - 0.14, y + 0.14)
        if mean is None:
            # On the left edge, whatever the axis turns out to be.
            axes.annotate(
                NO_SCORE,
                (0, upper),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                color=SOFT,
                fontsize=9,
            )
        else:
            spread = row.std(measure)
            if row.count(measure) > 1:
                axes.plot(
                    [100 * v for v in row.finished(measure)],
                    [upper] * row.count(measure),
                    "o",
                    color=OURS,
                    markerfacecolor="white",
                    markersize=4.5,
                    zorder=4,
                )
            axes.errorbar(
                100 * mean,
                upper,
                xerr=None if spread is None else 100 * spread,
                fmt="o",
                color=OURS,
                markersize=8,
                capsize=4,
                elinewidth=1.8,
            )
            note(axes, percent(mean, spread), 100 * mean, upper, 10, OURS)
        if paper is not None:
            axes.plot(100 * paper, lower, "D", color=PAPER, markerfacecolor="white", markersize=7, markeredgewidth=1.8)
            note(axes, percent(paper), 100 * paper, lower, -11, PAPER)
    for y, (_, value) in enumerate(others, start=len(rows)):
        axes.plot(100 * value, y, "s", color=OTHERS, markersize=6)
        note(axes, percent(value), 100 * value, y, 10, OTHERS)
    labels = [row.label for row in rows] + [label for label, _ in others]
    axes.set_yticks(range(len(labels)), [textwrap.fill(label, 30) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.margins(x=0.14)
    if axes.has_data():
        percent_axis(axes.xaxis)
    else:
        axes.set_xticks([])
    if others:
        axes.axhline(len(rows) - 0.5, color="#cbd5e1", linewidth=1)
    axes.set_title(f"{measure_name(measure)}, %", loc="left", fontsize=11, color=INK, fontweight="bold")


def _dot_keys(document: Document) -> list[Line2D]:
    keys = [marker("o", OURS, 8, ours_words(document))]
    if document.has_paper:
        keys.append(marker("D", PAPER, 7, "the paper", hollow=True))
    if any(_published(document, measure) for measure in document.measures):
        keys.append(marker("s", OTHERS, 6, "published by others"))
    return keys
