"""The two pages of an experiment's outcome, made from its JSON document alone: Markdown and a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mbdcnn.files import replacing
from train.reproduce._curve import curve_figure
from train.reproduce._document import Document
from train.reproduce._dot_chart import table_figure
from train.reproduce._heat_map import grid_figure
from train.reproduce._map_sheet import MapRow, write_map_sheet
from train.reproduce._markdown import markdown

__all__ = ["MapRow", "figure_of", "write_map_sheet", "write_report"]

_FIGURES: dict[str, Callable[[Document], Figure]] = {
    "table": table_figure,
    "curve": curve_figure,
    "grid": grid_figure,
}


def figure_of(content: Mapping[str, Any]) -> Figure:
    """The picture of a document of kind table, curve or grid; the arguments are `write_report`'s."""
    return _FIGURES[content["kind"]](Document(content))


def write_report(content: Mapping[str, Any], folder: Path) -> None:
    """Write `<name>.md` and `<name>.png`; the picture of kind `maps` is the caller's, by `write_map_sheet`.

    Args:
        content: the document. Scores are fractions. A row may lack `values`, `mean`, `std`, `paper` or single measures
            in them, and any score may be None: what is missing is shown as a dash. Optional: `command`, `published`,
            `paper_source`, `findings`, `notes`, `x_label` (what a curve's `x` is), `optimum` (the paper's choice:
            `{"x": number}` of a curve, both settings by name of a grid).
        folder: exists; files of these names in it are replaced.

    Raises:
        KeyError: `kind` is none of table, curve, grid and maps, or a required key is missing.
    """
    document = Document(content)
    if document["kind"] != "maps":
        figure = figure_of(content)
        with replacing(folder / f"{document['name']}.png") as part:
            figure.savefig(part, format="png")
    with replacing(folder / f"{document['name']}.md") as part:
        part.write_text(markdown(document), encoding="utf-8")
