"""What the pictures of all experiments share: colours, frame, keys."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.axis import XAxis, YAxis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from train.reproduce._document import NONE, Document

OURS, PAPER, OTHERS, INK, SOFT = "#d97706", "#4f5bd5", "#64748b", "#1e293b", "#64748b"
NO_SCORE = f"{NONE} no score"
_RULE = "#e2e8f0"
_LEAST_SPAN = 4.0  # points of percent
_HALO = [withStroke(linewidth=3, foreground="white")]


def sheet(width: float, height: float) -> Figure:
    """An empty picture, in inches."""
    figure = Figure(figsize=(width, height), dpi=100)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    return figure


def caption(figure: Figure, document: Document, keys: Sequence[Line2D] | Sequence[Patch]) -> None:
    """Put the experiment and its scale above the picture and the keys below it."""
    heading = textwrap.fill(document.heading, round(9 * figure.get_figwidth()))
    scale = f"{document['preset']}, {document['split']}, {document['n_images']} images"
    figure.suptitle(f"{heading}\n{scale}", x=0.012, ha="left", fontsize=13, color=INK)
    figure.legend(
        handles=list(keys), loc="outside lower left", ncols=len(keys), frameon=False, fontsize=9.5, labelcolor=INK
    )


def ours_words(document: Document) -> str:
    """What a key says of our figures."""
    count = len(document["seeds"])
    return "ours, one seed" if count == 1 else f"ours, mean ± standard deviation over {count} seeds"


def marker(shape: str, colour: str, size: float, label: str, *, hollow: bool = False) -> Line2D:
    """A key's sign."""
    face = "white" if hollow else colour
    return Line2D([], [], linestyle="", marker=shape, color=colour, markerfacecolor=face, markersize=size, label=label)


def note(axes: Axes, text: str, x: float, y: float, rise: float, colour: str) -> None:
    """Write a value above (or, with a negative rise in points, below) its mark."""
    axes.annotate(
        text,
        (x, y),
        xytext=(0, rise),
        textcoords="offset points",
        ha="center",
        va="center",
        color=colour,
        fontsize=9,
        path_effects=_HALO,
    )


def style(axes: Axes, grid: str) -> None:
    """Quiet frame, ticks and grid lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#cbd5e1")
    axes.tick_params(colors=INK, labelsize=9.5, length=3)
    axes.xaxis.label.set(color=INK, fontsize=10)
    axes.yaxis.label.set(color=INK, fontsize=10)
    axes.grid(axis=grid, color=_RULE, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def percent_axis(axis: XAxis | YAxis) -> None:
    """Give an axis round ticks up to 100, and never so small a span that noise looks like a result."""
    low, high = axis.get_view_interval()
    room = max(0.0, (_LEAST_SPAN - (high - low)) / 2)
    low, high = low - room, high + room
    ticks = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)
    axis.set_ticks([tick for tick in ticks if low <= tick <= min(high, 100)])
    axis.set_view_interval(low, high, ignore=True)
