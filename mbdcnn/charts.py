"""The looks of every chart on a page, and its way into the page."""

from __future__ import annotations

import base64
import io
import warnings

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbdcnn.page import words

INK, RULE = "#334155", "#e2e8f0"
# in the order of the classes
CLASS_COLOURS = ("#0f766e", "#b4235a", "#4f5bd5", "#d97706", "#0284c7", "#65a30d", "#7c3aed", "#92400e", "#64748b")
SERIES_COLOURS = ("#d97706", "#4f5bd5", "#0f766e", "#b4235a", "#94a3b8", "#7c3aed")


def chart_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one chart, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """Give axes the page's looks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#cbd5e1")
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.xaxis.label.set(color=INK, fontsize=9.5)
    axes.yaxis.label.set(color=INK, fontsize=9.5)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def legend_above(axes: Axes, columns: int) -> None:
    """The legend outside the frame: poor networks put their curves where good ones leave room."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.01),
        ncols=columns,
        borderaxespad=0,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
    )


def chart_words(name: str) -> str:
    """A class's or measure's name as text in a chart, where a dollar sign would begin a formula."""
    return words(name).replace("$", r"\$")


def svg_uri(figure: Figure) -> str:
    """A figure as a picture that an HTML page carries inside itself."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Glyph .* missing")
            drawn = _svg(figure)
    except UserWarning:  # a script that matplotlib's font lacks: its letters stay text, for the reader's own fonts
        with warnings.catch_warnings(), rc_context({"svg.fonttype": "none"}):
            warnings.filterwarnings("ignore", "Glyph .* missing")
            drawn = _svg(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(drawn).decode("ascii")


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()
