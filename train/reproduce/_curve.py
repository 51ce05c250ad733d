"""The picture of a curve: each measure over x, one line per series."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from train.reproduce._document import Document, Row, measure_name, series_of
from train.reproduce._plot_style import (
    INK,
    NO_SCORE,
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

_SERIES = ("#d97706", "#0f766e", "#b4235a", "#7c3aed", "#475569")
_LABEL_GAP = 13  # points from one line of text to the next


def curve_figure(document: Document) -> Figure:
    """Draw each measure over x, one line per series, with the paper's optimum where the document has one."""
    measures, optimum = document.measures, document.get("optimum")
    figure = sheet(8.6, 4.5 * len(measures) + 1.2)
    series = series_of(document.rows)
    drawn = []
    for position, measure in enumerate(measures, start=1):
        axes = figure.add_subplot(len(measures), 1, position)
        style(axes, "both")
        xs = sorted({row.x for row in document.rows} | ({optimum["x"]} if optimum else set()))
        _x_axis(axes, xs)
        lines = {name: [row for row in rows if row.mean(measure) is not None] for name, rows in series.items()}
        for (name, rows), colour in zip(lines.items(), _cycle(len(lines)), strict=True):
            _line(axes, measure, rows, colour)
            published = [(row.x, row.paper(measure)) for row in series[name] if row.paper(measure) is not None]
            axes.plot(
                [x for x, _ in published],
                [100 * (value or 0) for _, value in published],
                "D--",
                color=PAPER,
                markerfacecolor="white",
                markersize=6,
                linewidth=1,
            )
        _values(axes, measure, lines)
        if optimum:
            axes.axvline(optimum["x"], color=PAPER, linewidth=1.4, linestyle=(0, (4, 3)), zorder=0)
            axes.annotate(
                "the paper's optimum",
                (optimum["x"], 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                color=PAPER,
                fontsize=9,
                ha="center",
            )
        axes.margins(y=0.2)
        if any(lines.values()):
            percent_axis(axes.yaxis)
        else:
            axes.set_yticks([])
            axes.text(0.5, 0.5, NO_SCORE, transform=axes.transAxes, ha="center", color=SOFT, fontsize=10)
        axes.set(xlabel=document.get("x_label") or "", ylabel=f"{measure_name(measure)}, %")
        drawn.append((axes, measure, lines))
    keys = [marker("o", INK, 6, ours_words(document))]
    if document.has_paper:
        keys.append(marker("D", PAPER, 6, "the paper", hollow=True))
    caption(figure, document, keys)
    figure.draw_without_rendering()  # names are kept apart in points, which only a layout knows
    for axes, measure, lines in drawn:
        _names(axes, measure, lines)
    return figure


def _line(axes: Axes, measure: str, rows: Sequence[Row], colour: str) -> None:
    spreads = [row.std(measure) for row in rows]
    axes.errorbar(
        [row.x for row in rows],
        [100 * (row.mean(measure) or 0) for row in rows],
        yerr=[100 * (spread or 0) for spread in spreads] if any(spreads) else None,
        color=colour,
        marker="o",
        markersize=6,
        linewidth=1.8,
        capsize=4,
        elinewidth=1.4,
    )


def _values(axes: Axes, measure: str, lines: dict[str, list[Row]]) -> None:
    """Write the highest value of each x above it and the lowest below it: between them there may be no room."""
    points: dict[float, list[tuple[float, float, str]]] = {}
    for rows, colour in zip(lines.values(), _cycle(len(lines)), strict=True):
        for row in rows:
            mean, spread = row.mean(measure) or 0.0, row.std(measure) or 0.0
            points.setdefault(row.x, []).append((100 * mean, 100 * spread, colour))
    for x, here in points.items():
        top, bottom = max(here), min(here)
        note(axes, f"{top[0]:.1f}", x, top[0] + top[1], 9, top[2])
        if len(here) > 1:
            note(axes, f"{bottom[0]:.1f}", x, bottom[0] - bottom[1], -10, bottom[2])


def _names(axes: Axes, measure: str, lines: dict[str, list[Row]]) -> None:
    """Name each line at its right end, moved apart where two ends lie close."""
    low, high = axes.get_ylim()
    scale = axes.get_window_extent().height / axes.figure.dpi * 72 / (high - low)  # points per unit of y
    ends = sorted(
        (100 * (rows[-1].mean(measure) or 0), textwrap.fill(name, 22), colour)
        for (name, rows), colour in zip(lines.items(), _cycle(len(lines)), strict=True)
        if rows and name
    )
    floor = -np.inf
    for y, name, colour in ends:
        half = _LABEL_GAP * (name.count("\n") + 1) / 2
        level = max((y - low) * scale, floor + half)
        floor = level + half
        # At the frame, not at the last point: a line that is not finished ends where others go on.
        axes.annotate(
            name,
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(8, level - (y - low) * scale),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=9.5,
            fontweight="bold",
        )


def _x_axis(axes: Axes, xs: Sequence[float]) -> None:
    """Show all of x, also what has no score yet; tick every value that has room for its label."""
    is_wide = xs[0] > 0 and xs[-1] / xs[0] > 10
    places = np.log(xs) if is_wide else np.asarray(xs, dtype=float)
    span = float(places[-1] - places[0]) or 1.0
    edges = np.array([places[0], places[-1]]) + np.array([-0.05, 0.05]) * span
    axes.set(xscale="log" if is_wide else "linear", xlim=np.exp(edges) if is_wide else edges)
    ticks = [0]
    for index in range(1, len(xs)):
        if places[index] - places[ticks[-1]] >= 0.06 * span:
            ticks.append(index)
    axes.xaxis.set_major_locator(FixedLocator([xs[index] for index in ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{xs[index]:g}" for index in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())


def _cycle(count: int) -> list[str]:
    return [_SERIES[index % len(_SERIES)] for index in range(count)]
