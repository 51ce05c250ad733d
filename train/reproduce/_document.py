"""An experiment's JSON document as its two renderings read it: what is missing stays missing, nothing is assumed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NONE = "–"


@dataclass(frozen=True)
class Row:
    """One row of the document; every score is a fraction, or None where there is none (yet)."""

    entry: Mapping[str, Any]

    @property
    def label(self) -> str:
        """What the row is called."""
        return str(self.entry["label"])

    @property
    def x(self) -> Any:
        """A number (curve), the values of two settings by name (grid), or None (table)."""
        return self.entry.get("x")

    @property
    def series(self) -> str:
        """The line that the row belongs to; empty where there is only one."""
        return self.entry.get("series") or ""

    def mean(self, measure: str) -> float | None:
        """Mean over the seeds."""
        return self._number("mean", measure)

    def std(self, measure: str) -> float | None:
        """Standard deviation over the seeds; None with one seed."""
        return self._number("std", measure)

    def paper(self, measure: str) -> float | None:
        """The paper's figure."""
        return self._number("paper", measure)

    def finished(self, measure: str) -> list[float]:
        """The scores of the seeds that have one."""
        values = (self.entry.get("values") or {}).get(measure) or ()
        return [value for value in values if _is_number(value)]

    def count(self, measure: str) -> int:
        """How many seeds have a score."""
        return len(self.finished(measure))

    def _number(self, part: str, measure: str) -> float | None:
        value = (self.entry.get(part) or {}).get(measure)
        return value if _is_number(value) else None


@dataclass(frozen=True)
class Document:
    """The document itself, with its rows wrapped."""

    content: Mapping[str, Any]

    def __getitem__(self, key: str) -> Any:
        """A required entry."""
        return self.content[key]

    def get(self, key: str, default: Any = None) -> Any:
        """An entry that may be absent."""
        return self.content.get(key, default)

    @property
    def heading(self) -> str:
        """As the paper numbers it, and the title."""
        kind, number = re.fullmatch(r"([a-z]*)(.*)", self.content["name"]).groups()  # type: ignore[union-attr]
        return f"{'Figure' if kind == 'fig' else kind.capitalize()} {number}: {self.content['title']}"

    @property
    def rows(self) -> list[Row]:
        """All rows, finished or not."""
        return [Row(entry) for entry in self.content["rows"]]

    @property
    def measures(self) -> list[str]:
        """Dotted paths into an evaluation's document."""
        return list(self.content["measures"])

    @property
    def has_paper(self) -> bool:
        """Whether the paper has a figure for any row."""
        return any(row.paper(measure) is not None for row in self.rows for measure in self.measures)


def measure_name(path: str) -> str:
    """A measure's dotted path as words: `classification.mean_AUC` becomes "mean AUC"."""
    return path.removeprefix("classification.").replace(".", " ").replace("_", " ")


def percent(value: float | None, spread: float | None = None) -> str:
    """A fraction as percent with one decimal, with its spread where there is one; a dash for None."""
    if value is None:
        return NONE
    return f"{100 * value:.1f}" + ("" if spread is None else f" ± {100 * spread:.1f}")


def series_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """A curve's rows by series, in the order of x."""
    series: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.x):
        series.setdefault(row.series, []).append(row)
    # Sorting moved the series too: the document's order is the one to name them in.
    return {name: series[name] for name in dict.fromkeys(row.series for row in rows)}


def grid_of(rows: Sequence[Row]) -> tuple[tuple[str, list[float]], tuple[str, list[float]]]:
    """Both settings of a grid, each with its sorted values: the first goes down, the second across."""
    down, across = rows[0].x
    return (
        (down, sorted({row.x[down] for row in rows})),
        (across, sorted({row.x[across] for row in rows})),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
